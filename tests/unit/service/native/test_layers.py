"""The first layers: what numpy would compute, in whichever loop, wherever the items lie."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.native.layers import Branch, Columns, Dense, Layers, Level, packed
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


def reference(part: Columns, sums: Tensor) -> Tensor:
    values = np.maximum(sums, 0) if part.relu else sums
    for layer in part.layers:
        values = np.maximum(values @ layer.weight.T + layer.bias, 0)
    return values


def computed(
    parts: list[Columns], users: Tensor, user_row: Places, items: Kept, item_row: Places
) -> list[Tensor]:
    """All rows, in two calls; nothing but its room and its part of `out` is written."""
    layers, rows = Layers(parts), len(user_row)
    widths = [len(part.layers[-1].weight) if part.layers else part.width for part in parts]
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
    found = computed(parts, users, user_row, items, item_row)
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
    (found,) = computed([part], np.zeros((1, width), np.float32), places * 0, items, places)
    np.testing.assert_allclose(found, reference(part, items), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kept_as", [np.float32, np.float16])
def test_what_is_no_number_is_not_rectified_away(kept_as: type[np.floating[Any]]) -> None:
    items: Any = np.tile(np.array([np.nan, np.inf, -np.inf], kept_as), 15)[None]
    zero, user = np.zeros(1, np.int64), np.zeros((1, 45), np.float32)
    found = computed([Columns(33, True), Columns(12, False)], user, zero, items, zero)
    np.testing.assert_array_equal(found[0], np.where(items == -np.inf, 0, items)[:, :33])
    np.testing.assert_array_equal(found[1], items[:, 33:])


def test_what_is_no_number_goes_through_layers() -> None:
    part = columns(np.random.default_rng(0), 20, True, [3, 2])
    items = np.zeros((2, 20), np.float32)
    items[1, 17] = np.nan
    places = np.arange(2)
    (found,) = computed([part], np.zeros((1, 20), np.float32), places * 0, items, places)
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
    layers = Layers([columns(np.random.default_rng(0), 5, True, [3])])
    with pytest.raises(error, match=re.escape(message)):
        layers.compute(**given | change)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.lists(WIDTH, max_size=2), WIDTH, st.booleans())),
    WIDTH,
    ROWS,
    st.integers(0, 1000),
)
def test_branches_of_a_level_read_their_streams(
    shapes: list[tuple[int, list[int], int, bool]], width: int, rows: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    branches = []
    for stream, hidden, last, relu in shapes:
        layers = columns(rng, width, True, [*hidden, last]).layers
        if not hidden:  # a gate's logits
            layers = (Dense(layers[0].weight, layers[0].bias, relu),)
        branches.append(Branch(stream, layers))
    level, streams = Level(branches, 3, width), normal(rng, 3, rows, width)
    out, room = np.full(rows * level.out_width + 3, 7, np.float32), np.empty(level.room, np.float32)
    for some in (slice(0, rows // 3), slice(rows // 3, rows)):
        level.compute(streams, some, room, out)
    assert (out[-3:] == 7).all()
    start = 0
    for branch in branches:
        values = streams[branch.stream]
        for layer in branch.layers:
            values = values @ layer.weight.T + layer.bias
            values = np.maximum(values, 0) if layer.relu else values
        found = out[start : start + values.size].reshape(values.shape)
        np.testing.assert_allclose(found, values, rtol=1e-4, atol=1e-5)
        start += values.size


LAYERS = columns(np.random.default_rng(0), 5, True, [3]).layers


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"streams": np.zeros((2, 4, 5))}, "float64 in pieces or of another type; float32"),
        ({"streams": np.zeros((3, 4, 5), np.float32)}, "streams are (3, 4, 5), must be 2 of 5"),
        ({"streams": np.zeros((2, 4, 6), np.float32)}, "streams are (2, 4, 6), must be 2 of 5"),
        ({"streams": np.zeros((4, 2, 5), np.float32).swapaxes(0, 1)}, "float32 in pieces"),
        ({"rows": slice(0, 5)}, "slice(0, 5, None) of 4 rows"),
        ({"room": np.zeros(9, np.float32)}, "in a room of 9 numbers"),
        ({"out": np.zeros(11, np.float32)}, "11 numbers for 4 rows of 3"),
    ],
)
def test_a_level_touches_nothing_outside(change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {
        "streams": np.zeros((2, 4, 5), np.float32),
        "rows": slice(0, 4),
        "room": np.zeros(50_000, np.float32),
        "out": np.zeros(12, np.float32),
    }
    with pytest.raises(ValueError, match=re.escape(message)):
        Level([Branch(1, LAYERS)], 2, 5).compute(**given | change)


@pytest.mark.parametrize(
    ("branch", "message"),
    [
        (
            Branch(2, columns(np.random.default_rng(0), 5, True, [3]).layers),
            "stream 2 of 2, 1 layers",
        ),
        (Branch(-1, LAYERS), "stream -1 of 2"),
        (Branch(0, ()), "stream 0 of 2, 0 layers"),
        (
            Branch(
                0,
                (
                    *LAYERS,
                    Dense(np.zeros((2, 3), np.float32), np.zeros(2, np.float32), relu=False),
                ),
            ),
            "a layer after a ReLU must have one itself",
        ),
    ],
)
def test_a_level_that_does_not_fit_is_refused(branch: Branch, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Level([branch], 2, 5)


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
        Layers([Columns(5, True, (dense,))])


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
        dense, rest = computed(parts, users, rows, items, rows * 9)
        sums = users[rows] + items[rows * 9]
        return np.array_equal(rest, sums[:, 64:]) and np.allclose(
            dense, reference(parts[0], sums[:, :64]), atol=1e-5
        )

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(compute, range(50)))
