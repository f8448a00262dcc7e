"""The index of 64-bit keys against a dictionary, over any order of puts and removals."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.hash_index import ABSENT, NO_KEY, HashIndex, spread

keys = st.integers(1, 2**64 - 1) | st.integers(1, 40)  # the last all in one bucket
steps = st.lists(
    st.tuples(st.sampled_from(("put", "remove")), st.lists(keys, max_size=30, unique=True)),
    max_size=8,
)


def column(keys: list[int]) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return np.array(keys, np.uint64)


@given(steps, st.lists(keys))
def test_it_finds_what_a_dictionary_would(
    steps: list[tuple[str, list[int]]], asked: list[int]
) -> None:
    index, model, free = HashIndex(1000), dict[int, int](), 0
    for step, keys in steps:
        if step == "remove":
            index.remove(column(keys))
            for key in keys:
                model.pop(key, None)
            continue
        new = [key for key in keys if key not in model]
        slots = np.arange(free, free + len(new))
        free += len(new)
        displaced = index.put(column(new), slots)
        model.update(zip(new, slots.tolist(), strict=True))
        model = {key: slot for key, slot in model.items() if slot not in displaced}
    everything = [*asked, *model]
    expected = [model.get(key, ABSENT) for key in everything]
    assert index.find(column(everything)).tolist() == expected


@given(st.lists(keys, min_size=1, max_size=200, unique=True))
def test_keys_that_give_way_are_reported_and_gone(keys: list[int]) -> None:
    index = HashIndex(1)  # fewer places than keys
    displaced = set(index.put(column(keys), np.arange(len(keys))).tolist())
    found = index.find(column(keys))
    for slot, at in enumerate(found.tolist()):
        assert at == (ABSENT if slot in displaced else slot)


def test_no_room_is_wasted_on_keys_that_were_removed() -> None:
    index, rng = HashIndex(1000), np.random.default_rng(0)
    for _ in range(50):
        keys = rng.integers(1, 2**64, 1000, dtype=np.uint64)
        assert len(index.put(keys, np.arange(1000))) < 5  # a bucket without room is rare
        index.remove(keys)
    assert (index.find(keys) == ABSENT).all()


def test_the_key_that_is_none_is_never_found() -> None:
    index = HashIndex(4)
    assert index.find(np.full(3, NO_KEY)).tolist() == [ABSENT] * 3
    assert index.find(column([0] + [5] * 7)).tolist() == [ABSENT] * 8
    index.put(column([5]), np.array([2]))
    assert index.find(column([5, 0])).tolist() == [2, ABSENT]


def test_numbers_have_keys_of_their_own_spread_over_all_buckets() -> None:
    numbers = np.arange(-50_000, 50_000)
    keys = spread(numbers)
    assert len(np.unique(keys)) == len(numbers)
    assert len(np.unique(keys >> np.uint64(56))) == 256
    smallest = np.array([np.iinfo(np.int64).min])
    assert spread(smallest)[0] == NO_KEY
    assert (keys != NO_KEY).all()
