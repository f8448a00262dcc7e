"""The item tensor cache: a tensor is always that of the content asked for, within the budget."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.hash_index import spread
from service.metrics import Metrics
from service.scoring.item_cache import UNCACHED, ItemCache
from service.scoring.tensor_memory import TensorMemory
from service.values import KeptAs

WIDTH = 3
SLOT_BYTES = 4 * WIDTH
BLOCK_ROWS = 5
Array = npt.NDArray[np.float32]


def tensors(contents: npt.NDArray[np.uint64]) -> Array:
    return (contents[:, None] * np.arange(1, WIDTH + 1)).astype(np.float32)


class Asked:
    """A cache, what it computed, and its metrics."""

    def __init__(self, slots: int, kept_as: KeptAs = "float32") -> None:
        self.metrics = Metrics()
        memory = TensorMemory(kept_as)
        capacity = slots * WIDTH * memory.dtype.itemsize
        self.cache = ItemCache("m", capacity, WIDTH, self.metrics, memory)
        self.computed: list[list[int]] = []

    def gather(self, contents: list[int]) -> Array:
        asked = np.array(contents, np.uint64)
        hashes = np.where(asked == UNCACHED, asked, spread(asked.view(np.int64)))

        def compute(rows: npt.NDArray[np.intp]) -> Array:
            self.computed.append(asked[rows].tolist())
            return tensors(asked[rows])

        found = self.cache.gather(hashes, compute)
        assert len(found) == len(contents)
        blocks = (slice(at, at + BLOCK_ROWS) for at in range(0, len(found), BLOCK_ROWS))
        return np.concatenate([found[block].copy() for block in blocks])

    def value(self, name: str, **labels: str) -> float:
        value = self.metrics.registry.get_sample_value(f"multirank_{name}", {"model": "m"} | labels)
        return value or 0.0


@settings(deadline=None, max_examples=150)
@given(
    st.integers(0, 9),
    st.lists(st.lists(st.integers(0, 15), min_size=1, max_size=12), max_size=25),
    st.sampled_from(["float32", "float16"]),
)
def test_every_tensor_is_that_of_its_content(
    slots: int, requests: list[list[int]], kept_as: KeptAs
) -> None:
    asked = Asked(slots, kept_as)
    for contents in requests:
        computed = len(asked.computed)
        found = asked.gather(contents)
        np.testing.assert_array_equal(found, tensors(np.array(contents, np.uint64)))
        assert len(asked.computed) <= computed + 1  # all misses in one call
        assert asked.value("item_cache_bytes") <= slots * SLOT_BYTES
    hits = sum(map(len, requests)) - sum(map(len, asked.computed))
    assert asked.value("item_cache_rows_total", outcome="hit") == hits
    assert asked.value("item_cache_rows_total", outcome="miss") == sum(map(len, asked.computed))


def test_what_is_cached_is_not_computed_again() -> None:
    asked = Asked(slots=8)
    asked.gather([1, 2, 3])
    asked.gather([3, 4, 1])
    asked.gather([4, 4, 2])
    assert asked.computed == [[1, 2, 3], [4]]
    assert asked.value("item_cache_bytes") == 4 * SLOT_BYTES
    assert asked.value("item_cache_evictions_total") == 0


def test_uncached_content_is_always_computed() -> None:
    asked = Asked(slots=8)
    asked.gather([UNCACHED, 1])
    asked.gather([UNCACHED, 1])
    asked.gather([UNCACHED])
    assert asked.computed == [[0, 1], [0], [0]]
    assert asked.value("item_cache_bytes") == SLOT_BYTES


@pytest.mark.parametrize("capacity_bytes", [0, SLOT_BYTES - 1])
def test_no_room_for_one_tensor_turns_the_cache_off(capacity_bytes: int) -> None:
    cache = ItemCache("m", capacity_bytes, WIDTH, Metrics(), TensorMemory())
    keys = np.array([5, 6], np.uint64)
    for _ in range(2):
        found = cache.gather(keys, lambda rows: tensors(keys[rows]))
        np.testing.assert_array_equal(found[:], tensors(keys))


def test_a_scan_does_not_drive_out_what_is_in_use() -> None:
    asked = Asked(slots=10)
    hot = [1, 2, 3, 4]
    for each in range(50):
        asked.gather(hot)
        asked.gather([100 + 2 * each, 101 + 2 * each])
    assert sum(content in hot for computed in asked.computed for content in computed) == len(hot)


def test_what_a_run_reads_is_not_driven_out_by_what_it_computes() -> None:
    asked = Asked(slots=4)
    asked.gather([1, 2, 3])
    contents = [1, 2, 3, *range(10, 20)]
    np.testing.assert_array_equal(asked.gather(contents), tensors(np.array(contents, np.uint64)))
    asked.gather([1, 2, 3])
    assert asked.computed == [[1, 2, 3], [*range(10, 20)]]


@pytest.mark.parametrize("rows", [1, 3])
def test_tensors_too_few_or_too_many_are_an_error(rows: int) -> None:
    cache = ItemCache("m", 8 * SLOT_BYTES, WIDTH, Metrics(), TensorMemory())
    with pytest.raises(ValueError, match=f"{rows} item tensors where 2 are due"):
        cache.gather(np.array([5, 6], np.uint64), lambda _: np.ones((rows, WIDTH), np.float32))


def test_a_failed_computation_leaves_the_cache_as_it_was() -> None:
    asked = Asked(slots=4)
    asked.gather([1, 2])

    def fail(rows: npt.NDArray[np.intp]) -> Array:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        asked.cache.gather(np.array([1, 9], np.uint64), fail)
    np.testing.assert_array_equal(asked.gather([9, 1, 2]), tensors(np.array([9, 1, 2], np.uint64)))
    assert asked.computed == [[1, 2], [9]]


def test_half_the_bytes_and_the_same_rounding_whatever_is_cached() -> None:
    asked = Asked(4, "float16")
    exact = np.array([[0.1, 1000.3, -7e4], [1 / 3, np.nan, 1e-9]], np.float32)
    keys = spread(np.arange(1, 3))
    first, again = (asked.cache.gather(keys, lambda rows: exact[rows])[:].copy() for _ in range(2))
    with np.errstate(over="ignore"):
        rounded = exact.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(first, rounded)
    np.testing.assert_array_equal(again, rounded)
    np.testing.assert_array_equal(asked.cache.rounded(exact), rounded)
    assert first[0, 2] == -np.inf
    assert asked.value("item_cache_bytes") == 2 * WIDTH * 2
    assert Asked(4).cache.rounded(exact) is exact
