"""The first layers and levels: what numpy would compute, in whichever loop, wherever items lie."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.native.layers import Branch, Columns, Dense, Gates, Layers, Level, packed
from service.native.library import Kept, Places, Tensor

pytestmark = pytest.mark.usefixtures("loop")

WIDTH = st.integers(1, 150)
SHAPE = st.tuples(WIDTH, st.booleans(), st.lists(WIDTH, max_size=2))
ROWS = st.integers(0, 140)
FLOATS = st.sampled_from([np.float32, np.float16])


def normal(rng: np.random.Generator, *shape: int) -> Tensor:
    return rng.standard_normal(shape, np.float32)


def columns(rng: np.random.Generator, width: int, relu: bool, layers: list[int]) -> Columns:
    widths = [width, *layers]
    dense = [
        Dense(normal(rng, outputs, inputs) / np.float32(inputs**0.5), normal(rng, outputs))
        for inputs, outputs in zip(widths, layers, strict=False)
    ]
    return Columns(width, relu or bool(layers), tuple(dense))


def through(layers: tuple[Dense, ...], values: Tensor) -> Tensor:
    for layer in layers:
        values = values @ layer.weight.T + layer.bias
        values = np.maximum(values, 0) if layer.relu else values
    return values


def reference(part: Columns, sums: Tensor) -> Tensor:
    return through(part.layers, np.maximum(sums, 0) if part.relu else sums)


def said(part: Columns | Branch, place: int, below: list[Tensor]) -> Tensor:
    """What comes of a part of a level."""
    if isinstance(part, Columns):
        return reference(part, below[place])
    return through(part.layers, below[part.stream])


def mixed(gates: Gates, parts: list[Tensor]) -> list[Tensor]:
    """The mixtures of some parts, in double precision where it matters."""
    experts = np.stack(parts[: gates.experts])
    logits = np.concatenate(parts[gates.experts :], axis=1).reshape(-1, gates.number, gates.experts)
    allowed = logits.astype(np.float64) + (0 if gates.mask is None else gates.mask)
    weights = np.exp(allowed - allowed.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return list(np.einsum("nge,enh->gnh", weights, experts).astype(np.float32))


def computed(
    levels: list[Level], users: Tensor, user_row: Places, items: Kept, item_row: Places
) -> list[Tensor]:
    """All rows, in two calls; nothing but its room and its part of `out` is written."""
    layers, rows = Layers(levels), len(user_row)
    parts, gates = levels[-1].parts, levels[-1].gates
    widths = [part.out_width for part in parts]
    if gates is not None:
        widths = widths[:1] * gates.number
    assert layers.out_width == sum(widths)
    ends = np.cumsum([0, *(rows * width for width in widths)])
    out, room = np.full(ends[-1] + 3, 7, np.float32), np.full(layers.room + 3, 7, np.float32)
    for some in (slice(0, rows // 3), slice(rows // 3, rows)):
        layers.compute(users, user_row, items, item_row, some, room[:-3], out)
    assert (out[-3:] == 7).all()
    assert (room[-3:] == 7).all()
    return [
        out[start:end].reshape(rows, width)
        for start, end, width in zip(ends, ends[1:], widths, strict=False)
    ]


@given(st.lists(SHAPE, min_size=1, max_size=3), ROWS, FLOATS, st.integers(0, 1000))
def test_each_part_goes_through_its_layers(
    shapes: list[tuple[int, bool, list[int]]],
    rows: int,
    kept_as: type[np.floating[Any]],
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    parts = [columns(rng, *shape) for shape in shapes]
    width = sum(part.width for part in parts)
    users, items = normal(rng, 3, width), normal(rng, 9, width).astype(kept_as)
    user_row, item_row = rng.integers(0, 3, rows), rng.integers(0, 9, rows)
    found = computed([Level(parts)], users, user_row, items, item_row)
    cuts = np.cumsum([part.width for part in parts])[:-1]
    sums = np.split(users[user_row] + items[item_row], cuts, axis=1)
    for part, values, each in zip(parts, found, sums, strict=True):
        if part.layers:
            np.testing.assert_allclose(values, reference(part, each), rtol=1e-4, atol=1e-5)
        else:
            np.testing.assert_array_equal(values, reference(part, each))


@given(st.integers(1, 200), st.floats(0, 1), st.integers(0, 1000))
def test_it_does_not_matter_how_many_inputs_are_zero(width: int, share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    part = columns(rng, width, True, [5])
    items = np.where(rng.random((70, width)) < share, -1, 1).astype(np.float32)
    places = np.arange(70)
    (found,) = computed(
        [Level([part])], np.zeros((1, width), np.float32), places * 0, items, places
    )
    np.testing.assert_allclose(found, reference(part, items), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kept_as", [np.float32, np.float16])
def test_what_is_no_number_is_not_rectified_away(kept_as: type[np.floating[Any]]) -> None:
    items: Any = np.tile(np.array([np.nan, np.inf, -np.inf], kept_as), 15)[None]
    zero, user = np.zeros(1, np.int64), np.zeros((1, 45), np.float32)
    found = computed([Level([Columns(33, True), Columns(12, False)])], user, zero, items, zero)
    np.testing.assert_array_equal(found[0], np.where(items == -np.inf, 0, items)[:, :33])
    np.testing.assert_array_equal(found[1], items[:, 33:])


def test_what_is_no_number_goes_through_layers() -> None:
    part = columns(np.random.default_rng(0), 20, True, [3, 2])
    items = np.zeros((2, 20), np.float32)
    items[1, 17] = np.nan
    places = np.arange(2)
    (found,) = computed([Level([part])], np.zeros((1, 20), np.float32), places * 0, items, places)
    assert np.isfinite(found[0]).all()
    assert np.isnan(found[1]).all()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"users": np.zeros((2, 5))}, ValueError, "float64 in pieces or of another type; float32"),
        ({"users": np.zeros((5, 2), np.float32).T}, ValueError, "float32 in pieces"),
        ({"items": np.zeros((2, 4), np.float32)}, ValueError, "tensors are (2, 4), must be 5 wide"),
        ({"items": np.zeros((2, 4), np.float16)}, ValueError, "tensors are (2, 4), must be 5 wide"),
        ({"items": np.zeros((2, 5))}, ValueError, "float64 in pieces or of another type; float32"),
        ({"user_row": np.array([0, 2])}, IndexError, "one not there"),
        ({"user_row": np.array([-1, 0])}, IndexError, "one not there"),
        ({"item_row": np.array([0, 2])}, IndexError, "one not there"),
        ({"item_row": np.array([0])}, ValueError, "1 item rows for 2 user rows"),
        ({"item_row": np.array([0, 1], np.int32)}, ValueError, "int32 in pieces or of another"),
        ({"rows": slice(-1, 2)}, ValueError, "slice(-1, 2, None) of 2 rows"),
        ({"rows": slice(2, 1)}, ValueError, "slice(2, 1, None) of 2 rows"),
        ({"rows": slice(0, 3)}, ValueError, "slice(0, 3, None) of 2 rows"),
        ({"room": np.zeros(9, np.float32)}, ValueError, "in a room of 9 numbers"),
        ({"room": np.zeros(50_000)}, ValueError, "float64 in pieces or of another type; float32"),
        ({"out": np.zeros(5, np.float32)}, ValueError, "5 numbers for 2 rows of 3"),
        ({"out": np.zeros(6)}, ValueError, "float64 in pieces or of another type; float32"),
    ],
)
def test_nothing_outside_of_the_arrays_is_touched(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    tensors, rows = np.zeros((2, 5), np.float32), np.arange(2)
    given: dict[str, Any] = {
        "users": tensors,
        "user_row": rows,
        "items": tensors,
        "item_row": rows,
        "rows": slice(0, 2),
        "room": np.zeros(50_000, np.float32),
        "out": np.zeros(6, np.float32),
    }
    layers = Layers([Level([columns(np.random.default_rng(0), 5, True, [3])])])
    with pytest.raises(error, match=re.escape(message)):
        layers.compute(**given | change)


def gates_of(rng: np.random.Generator, number: int, experts: int, masked: bool) -> Gates:
    mask = np.where(rng.random((number, experts)) < 0.4, -np.inf, 0).astype(np.float32)
    mask[:, 0] = 0
    return Gates(number, experts, mask if masked else None)


@given(
    st.tuples(ROWS, st.integers(1, 4), st.integers(1, 6), WIDTH),
    st.booleans(),
    st.floats(0, 200),
    st.integers(0, 1000),
)
def test_gates_mix_what_experts_say(
    shape: tuple[int, int, int, int], masked: bool, spread: float, seed: int
) -> None:
    rows, number, experts, width = shape
    rng = np.random.default_rng(seed)
    gates = gates_of(rng, number, experts, masked)
    items = normal(rng, 9, experts * width + number * experts)
    items[:, experts * width :] *= np.float32(spread)
    users, zero, item_row = np.zeros_like(items[:1]), np.zeros(rows, int), rng.integers(0, 9, rows)
    widths = [width] * experts
    together, apart = (
        computed(
            [Level([Columns(each, False) for each in (*widths, *logits)], gates)],
            *(users, zero, items, item_row),
        )
        for logits in ([number * experts], [experts] * number)
    )
    parts = np.split(items[item_row], np.cumsum(widths), axis=1)
    np.testing.assert_allclose(together, mixed(gates, parts), rtol=1e-5, atol=2e-6)
    np.testing.assert_array_equal(apart, together)


def test_a_gate_without_a_number_says_so_and_an_expert_that_is_not_asked_does_not() -> None:
    gates = Gates(2, 2, np.array([[0, -np.inf], [0, 0]], np.float32))
    first, second = np.ones((2, 17)), np.ones((2, 17))
    logits = np.zeros((2, 4))
    second[0] = logits[1, 2] = np.nan
    items = np.concatenate([first, second, logits], axis=1).astype(np.float32)
    parts = [Columns(17, False), Columns(17, False), Columns(4, False)]
    places = np.arange(2)
    found = computed(
        [Level(parts, gates)], np.zeros((1, 38), np.float32), places * 0, items, places
    )
    assert np.isnan(found).all(axis=2).tolist() == [[False, False], [True, True]]
    assert (found[0] == 1).all()


@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.integers(1, 4), WIDTH, st.booleans(), st.booleans()),
        min_size=2,
        max_size=3,
    ),
    st.booleans(),
    ROWS,
    st.integers(0, 1000),
)
def test_levels_read_the_mixtures_below(
    shapes: list[tuple[int, int, int, bool, bool]], ends_with_parts: bool, rows: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    levels: list[Level] = []
    streams, below = 0, 0
    for number, experts, width, masked, deep in shapes:
        gates = gates_of(rng, number, experts, masked)
        hidden = [width + 5] if deep else []
        if not levels:
            parts = [columns(rng, 20, True, [*hidden, width]) for _ in range(experts)]
            levels.append(Level([*parts, Columns(number * experts, False)], gates))
        else:
            branches = [
                Branch(
                    int(rng.integers(streams)), columns(rng, below, True, [*hidden, width]).layers
                )
                for _ in range(experts)
            ]
            for _ in range(number):
                (logits,) = columns(rng, below, True, [experts]).layers
                gate = Dense(logits.weight, logits.bias, relu=False)
                branches.append(Branch(int(rng.integers(streams)), (gate,)))
            levels.append(Level(branches, gates))
        streams, below = number, width
    if ends_with_parts:
        levels[-1] = Level(levels[-1].parts)
    widths = [part.width for part in levels[0].parts if isinstance(part, Columns)]
    users, items = normal(rng, 3, sum(widths)), normal(rng, 9, sum(widths))
    user_row, item_row = rng.integers(0, 3, rows), rng.integers(0, 9, rows)
    found = computed(levels, users, user_row, items, item_row)
    values = np.split(users[user_row] + items[item_row], np.cumsum(widths)[:-1], axis=1)
    for level in levels:
        of_level: Sequence[Columns | Branch] = level.parts
        values = [said(part, place, values) for place, part in enumerate(of_level)]
        values = values if level.gates is None else mixed(level.gates, values)
    assert len(found) == len(values)
    for each, wanted in zip(found, values, strict=True):
        np.testing.assert_allclose(each, wanted, rtol=2e-3, atol=2e-4)


LAYERS = columns(np.random.default_rng(0), 6, True, [3]).layers
UNRECTIFIED = Dense(np.zeros((2, 3), np.float32), np.zeros(2, np.float32), relu=False)
SIX = Level([Columns(6, False), Columns(6, False), Columns(4, False)], Gates(2, 2, None))


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ([Level([Branch(0, LAYERS)])], "the first level has columns, those above have branches"),
        ([SIX, SIX], "the first level has columns, those above have branches"),
        ([Level([Columns(6, False)]), Level([Branch(0, LAYERS)])], "stream 0 of 0, 1 layers"),
        ([SIX, Level([Branch(2, LAYERS)])], "stream 2 of 2, 1 layers"),
        ([SIX, Level([Branch(-1, LAYERS)])], "stream -1 of 2"),
        ([SIX, Level([Branch(0, ())])], "stream 0 of 2, 0 layers"),
        (
            [SIX, Level([Branch(0, (*LAYERS, UNRECTIFIED))])],
            "a layer after a ReLU must have one itself",
        ),
        ([Level([Columns(3, True, (UNRECTIFIED,))])], "a layer after a ReLU must have one itself"),
        ([SIX, Level([Branch(0, (UNRECTIFIED,))])], "weights (2, 3) and bias (2,) for 6 inputs"),
        (
            [Level(SIX.parts, Gates(3, 2, None))],
            "3 gates and 2 experts for parts that are [6, 6, 4",
        ),
        (
            [Level(SIX.parts, Gates(4, 1, None))],
            "4 gates and 1 experts for parts that are [6, 6, 4",
        ),
        ([Level(SIX.parts[1:], Gates(2, 2, None))], "experts must be of one width"),
        (
            [Level(SIX.parts, Gates(2, 2, np.zeros((2, 3), np.float32)))],
            "a mask (2, 3) for 2 gates and 2 experts",
        ),
        (
            [Level(SIX.parts, Gates(2, 2, np.zeros((2, 2))))],  # type: ignore[arg-type]
            "float64 in pieces or of another type; float32",
        ),
    ],
)
def test_levels_that_do_not_fit_are_refused(levels: list[Level], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Layers(levels)


@pytest.mark.parametrize(
    ("weight", "bias", "message"),
    [
        ((3, 4), (3,), "weights (3, 4) and bias (3,) for 5 inputs"),
        ((3, 5), (4,), "weights (3, 5) and bias (4,) for 5 inputs"),
    ],
)
def test_layers_that_do_not_fit_are_refused(
    weight: tuple[int, int], bias: tuple[int], message: str
) -> None:
    dense = Dense(np.zeros(weight, np.float32), np.zeros(bias, np.float32))
    with pytest.raises(ValueError, match=re.escape(message)):
        Layers([Level([Columns(5, True, (dense,))])])


def test_weights_lie_in_blocks_that_begin_with_a_line() -> None:
    weight = normal(np.random.default_rng(0), 40, 3)
    found = packed(weight, 64)
    assert found.ctypes.data % 64 == 0
    np.testing.assert_array_equal(found.reshape(3, 48)[:, :40], weight.T)
    wide = packed(normal(np.random.default_rng(1), 100, 3), 64)
    assert wide.shape == (3 * 64 + 3 * 48,)


def test_threads_compute_beside_each_other() -> None:
    rng = np.random.default_rng(0)
    parts = [columns(rng, 64, True, [20]), Columns(8, False)]
    users, items = normal(rng, 4, 72), normal(rng, 50, 72)

    def compute(seed: int) -> bool:
        rows = np.random.default_rng(seed).integers(0, 4, 200)
        dense, rest = computed([Level(parts)], users, rows, items, rows * 9)
        sums = users[rows] + items[rows * 9]
        return np.array_equal(rest, sums[:, 64:]) and np.allclose(
            dense, reference(parts[0], sums[:, :64]), atol=1e-5
        )

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(compute, range(50)))
