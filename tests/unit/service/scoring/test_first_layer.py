"""The first layer: what numpy would compute, part by part, wherever the items lie."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.manifest import Part
from service import native
from service.scoring.first_layer import FirstLayer

PART = st.tuples(st.integers(1, 40), st.booleans())
LOOPS = [bits for bits in (128, 256, 512) if bits <= native.VECTOR_BITS]


def parts(shapes: list[tuple[int, bool]]) -> list[Part]:
    return [Part(tensor=f"t{at}", width=w, relu=r) for at, (w, r) in enumerate(shapes)]


@pytest.fixture(params=LOOPS, scope="module", autouse=True)
def loop(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each of the loops that this processor can run, its own being the last."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "VECTOR_BITS", request.param)
        yield


def test_the_loop_is_the_one_that_this_processor_has_instructions_for() -> None:
    flags = Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split()
    widest = 512 if "avx512f" in flags else 256 if "avx2" in flags else 128
    assert LOOPS[-1] == widest


@given(
    st.lists(PART, min_size=1, max_size=5),
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 6)), max_size=30),
    st.integers(0, 1000),
    st.sampled_from([np.float32, np.float16]),
)
def test_it_is_the_rectified_sum(
    shapes: list[tuple[int, bool]],
    rows: list[tuple[int, int]],
    seed: int,
    kept_as: type[np.floating[Any]],
) -> None:
    layer, rng = FirstLayer(parts(shapes)), np.random.default_rng(seed)
    users = rng.standard_normal((3, layer.width), np.float32)
    items: Any = rng.standard_normal((7, layer.width), np.float32).astype(kept_as)
    places = np.array(rows, np.int64).reshape(-1, 2).T.copy()
    out = np.full(len(rows) * layer.width + 3, 7, np.float32)
    found = layer.compute(users, places[0], items, places[1], out)
    total = users[places[0]] + items[places[1]]
    cuts = np.cumsum([width for width, _ in shapes])[:-1]
    for expected, (name, values), (_, relu) in zip(
        np.split(total, cuts, axis=1), found.items(), shapes, strict=True
    ):
        wanted = np.maximum(expected, 0) if relu else expected
        np.testing.assert_array_equal(values, wanted, err_msg=name)
    assert (out[len(rows) * layer.width :] == 7).all()


@pytest.mark.parametrize("kept_as", [np.float32, np.float16])
def test_what_is_no_number_is_not_rectified_away(kept_as: type[np.floating[Any]]) -> None:
    layer = FirstLayer(parts([(33, True), (12, False)]))
    items: Any = np.tile(np.array([np.nan, np.inf, -np.inf], kept_as), 15)[None]
    zero, user = np.zeros(1, np.int64), np.zeros((1, 45), np.float32)
    found = layer.compute(user, zero, items, zero, np.empty(45, np.float32))
    np.testing.assert_array_equal(found["t0"], np.where(items == -np.inf, 0, items)[:, :33])
    np.testing.assert_array_equal(found["t1"], items[:, 33:])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"users": np.zeros((2, 5))}, ValueError, "float64 in pieces or of another type; float32"),
        ({"users": np.zeros((5, 2), np.float32).T}, ValueError, "float32 in pieces"),
        ({"items": np.zeros((2, 4), np.float32)}, ValueError, "tensors are (2, 4), must be 5 wide"),
        ({"items": np.zeros((2, 4), np.float16)}, ValueError, "tensors are (2, 4), must be 5 wide"),
        ({"items": np.zeros((2, 5))}, ValueError, "float64 in pieces or of another type; float32"),
        (
            {"user_row": np.array([0, 2])},
            IndexError,
            "one not among them",
        ),
        ({"user_row": np.array([-1, 0])}, IndexError, "one not among them"),
        ({"item_row": np.array([0, 2])}, IndexError, "one not among them"),
        ({"item_row": np.array([0])}, ValueError, "1 item rows"),
        ({"item_row": np.array([0, 1], np.int32)}, ValueError, "int32 in pieces or of another"),
        ({"out": np.zeros(9, np.float32)}, ValueError, "9 numbers for 2 user rows"),
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
        "out": np.zeros(10, np.float32),
    }
    with pytest.raises(error, match=re.escape(message)):
        FirstLayer(parts([(5, True)])).compute(**given | change)


def test_threads_compute_beside_each_other() -> None:
    layer, rng = FirstLayer(parts([(64, True), (8, False)])), np.random.default_rng(0)
    users = rng.standard_normal((4, 72), np.float32)
    items = rng.standard_normal((50, 72), np.float32)

    def compute(seed: int) -> bool:
        rows = np.random.default_rng(seed).integers(0, 4, 200)
        found = layer.compute(users, rows, items, rows * 9, np.empty(200 * 72, np.float32))
        return np.array_equal(found["t1"], users[rows, 64:] + items[rows * 9, 64:])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(compute, range(200)))
