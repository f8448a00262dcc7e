"""Memory for item tensors: handed on to the next version, never to two; let go when unwanted."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

from service.metrics import Metrics
from service.scoring.item_cache import ItemCache
from service.scoring.tensor_memory import TensorMemory


class Owner:
    pass


def test_what_one_gives_back_the_next_one_gets() -> None:
    memory, first = TensorMemory(), Owner()
    tensors = memory.take(first, 3, 2)
    assert tensors.shape == (3, 2)
    assert tensors.dtype == np.float32
    beside = Owner()
    other = memory.take(beside, 3, 2)
    assert not np.shares_memory(other, tensors)
    del first
    gc.collect()
    assert memory.take(Owner(), 3, 2) is tensors


@pytest.mark.parametrize("shape", [(4, 2), (3, 1)])
def test_another_size_is_new(shape: tuple[int, int]) -> None:
    memory, first = TensorMemory(), Owner()
    tensors = weakref.ref(memory.take(first, 3, 2))
    del first
    gc.collect()
    assert tensors() is not None
    assert memory.take(Owner(), *shape).shape == shape
    gc.collect()
    assert tensors() is None


def test_it_is_forgotten_when_nobody_wants_it() -> None:
    memory, first = TensorMemory(), Owner()
    tensors = weakref.ref(memory.take(first, 3, 2))
    del first
    gc.collect()
    assert tensors() is not None
    memory.forget()
    gc.collect()
    assert tensors() is None


def test_a_cache_on_used_memory_has_nothing_of_the_one_before() -> None:
    memory, metrics = TensorMemory(), Metrics()
    contents = np.arange(1, 4, dtype=np.uint64) << np.uint64(60)
    found = []
    for value in (1.0, 2.0):
        cache = ItemCache("m", 10 * 4 * 2, 2, metrics, memory)
        computed = np.full((3, 2), value, np.float32)
        found.append(cache.gather(contents, computed.__getitem__)[:])
        place = cache.tensors.ctypes.data
        if value == 1.0:
            first_place = place
        del cache
        gc.collect()
    assert place == first_place
    np.testing.assert_array_equal(found, [np.full((3, 2), 1.0), np.full((3, 2), 2.0)])
