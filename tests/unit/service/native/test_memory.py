"""Copying rows and finding keys do what numpy would, and touch nothing else."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.native.memory import copy_rows, find


@given(st.integers(1, 40), st.lists(st.integers(0, 8), max_size=20), st.randoms())
def test_rows_are_copied_to_their_places(width: int, source_row: list[int], random: Any) -> None:
    source = np.random.default_rng(width).standard_normal((9, width), np.float32)
    places = random.sample(range(30), len(source_row))
    target = np.zeros((30, width), np.float32)
    expected = target.copy()
    expected[places] = source[source_row]
    copy_rows(source, np.array(source_row, np.int64), target, np.array(places, np.int64))
    np.testing.assert_array_equal(target, expected)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"source": np.zeros((3, 2))}, ValueError, "float64 in pieces or of another type; float32"),
        ({"target": np.zeros((3, 2), np.float16)}, ValueError, "float32 in pieces or of another"),
        ({"target": np.zeros((3, 5), np.float32)}, ValueError, "tensors are (3, 5), must be 2"),
        ({"target": np.zeros((3, 4), np.float32)[:, :2]}, ValueError, "float32 in pieces"),
        ({"source_row": np.array([0, 3])}, IndexError, "one not among them"),
        ({"source_row": np.array([-1, 0])}, IndexError, "one not among them"),
        ({"target_row": np.array([0, 3])}, IndexError, "one not among them"),
        ({"target_row": np.array([-1, 0])}, IndexError, "one not among them"),
        ({"target_row": np.array([0])}, ValueError, "2 rows for 1 places"),
    ],
)
def test_no_row_outside_is_copied(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    given: dict[str, Any] = {
        "source": np.ones((3, 2), np.float32),
        "source_row": np.arange(2),
        "target": np.zeros((3, 2), np.float32),
        "target_row": np.arange(2),
    }
    with pytest.raises(error, match=re.escape(message)):
        copy_rows(**given | change)
    assert not given["target"].any()


def test_a_table_of_another_shape_is_not_searched() -> None:
    keys, buckets = np.ones(3, np.uint64), np.zeros((4, 8), np.uint64)
    slots = np.full(32, -1)
    assert find(keys, buckets, slots, 62).tolist() == [-1, -1, -1]
    with pytest.raises(ValueError, match="for a shift of 61"):
        find(keys, buckets, slots, 61)
    with pytest.raises(ValueError, match="for a shift of 62"):
        find(keys, buckets, slots[:31], 62)
    with pytest.raises(ValueError, match="int64 in pieces or of another type; uint64"):
        find(keys.astype(np.int64), buckets, slots, 62)
