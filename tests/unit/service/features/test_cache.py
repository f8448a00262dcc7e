"""The in-process tier: what is found is what was put, for as long as it may be believed."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.rows import Decoded
from service.features.cache import CachedRows, RowCache, describe
from service.hash_index import ABSENT
from service.values import Keys
from tests.unit.service.features.fake_store import LAYOUTS

LAYOUT = LAYOUTS["item"]
A_READ = 1
PRICE = LAYOUT.slots["price"].start


def rows(prices: list[float | None]) -> CachedRows:
    """Rows with these prices; None is an id that the store does not know."""
    packed = LAYOUT.pack({"price": prices}, len(prices))
    found = np.array([price is not None for price in prices], bool)
    nothing = np.zeros(len(prices), bool)
    content = LAYOUT.content_hash(packed)
    return describe(LAYOUT, Decoded(packed, content, found, nothing, nothing))


def price_of(cache: RowCache, entity_id: str, now: float) -> float | None:
    """The cached price; None when there is no row, NaN when it is known that there is none."""
    taken, _, _ = cache.look_up([entity_id], now)
    if taken is None:
        return None
    price = float(taken.rows["numbers"][0, PRICE])
    assert taken.found[0] == (not np.isnan(price))
    assert taken.content[0] == LAYOUT.content_hash(taken.rows)[0]
    assert taken.complete[0] == LAYOUT.complete(taken.rows)[0]
    return price


def put(cache: RowCache, ids: Keys, rows: CachedRows, now: float, ttl_s: float) -> None:
    """Keep rows, as a read of them would."""
    cache.fill(cache.reserve(ids, A_READ), A_READ, rows, now, ttl_s)


def found_in(cache: RowCache, ids: Keys, now: float) -> CachedRows:
    """The rows of ids, all of which are there."""
    taken, absent, _ = cache.look_up(ids, now)
    assert taken is not None
    assert not len(absent)
    return taken


ids = st.sampled_from(["1", "2", "-3", "d", "e", "07", "g", "h"])
steps = st.one_of(
    st.tuples(
        st.just("put"), st.lists(ids, min_size=1, max_size=5, unique=True), st.integers(0, 9)
    ),
    st.tuples(st.just("drop"), ids, st.none()),
    st.tuples(st.just("find"), st.lists(ids, max_size=5), st.none()),
)


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2000), st.lists(steps, max_size=40))
def test_what_is_found_is_what_was_put_last(capacity_bytes: int, script: list[tuple]) -> None:  # type: ignore[type-arg]
    cache = RowCache(LAYOUT, capacity_bytes)
    truth: dict[str, float] = {}
    for number, (step, about, value) in enumerate(script):
        now = float(number)
        if step == "put":
            put(cache, about, rows([float(value)] * len(about)), now, ttl_s=1000.0)
            truth |= dict.fromkeys(about, float(value))
        elif step == "drop":
            cache.expire([about])
            truth.pop(about, None)
        else:
            cache.look_up(about, now)
        for entity_id in ("1", "2", "-3", "d", "e", "07", "g", "h"):
            found = price_of(cache, entity_id, now)
            assert found is None or found == truth[entity_id]
        if step == "put":
            assert price_of(cache, about[-1], now) is not None


def test_rows_expire() -> None:
    cache = RowCache(LAYOUT, 1 << 16)
    put(cache, ["a"], rows([1.0]), now=100.0, ttl_s=10.0)
    assert price_of(cache, "a", 108.9) == 1.0
    assert price_of(cache, "a", 110.1) is None
    put(cache, ["a"], rows([2.0]), now=120.0, ttl_s=10.0)
    assert price_of(cache, "a", 121.0) == 2.0


def test_rows_that_came_together_do_not_expire_together() -> None:
    cache = RowCache(LAYOUT, 1 << 16)
    many = [str(each) for each in range(100)]
    put(cache, many, rows([1.0] * 100), now=0.0, ttl_s=100.0)
    gone = [len(cache.look_up(many, now)[1]) for now in (89.0, 95.0, 100.1)]
    assert gone[0] == 0
    assert 0 < gone[1] < 100
    assert gone[2] == 100


def test_that_there_is_no_row_is_known_too() -> None:
    cache = RowCache(LAYOUT, 1 << 16)
    put(cache, ["a", "b"], rows([None, 1.0]), now=0.0, ttl_s=10.0)
    assert found_in(cache, ["a", "b"], 1.0).found.tolist() == [False, True]


def test_what_was_taken_does_not_change_afterwards() -> None:
    cache = RowCache(LAYOUT, 1 << 16)
    put(cache, ["a"], rows([1.0]), now=0.0, ttl_s=10.0)
    taken = found_in(cache, ["a"], 0.0)
    put(cache, ["a"], rows([2.0]), now=0.0, ttl_s=10.0)
    assert taken.rows["numbers"][0, PRICE] == 1.0
    taken.rows["numbers"][0, PRICE] = 3.0
    assert price_of(cache, "a", 0.0) == 2.0


def test_a_scan_does_not_drive_out_what_is_in_use() -> None:
    cache = RowCache(LAYOUT, 12 * (LAYOUT.dtype.itemsize + 200))
    hot = ["a", "b", "c", "d"]
    put(cache, hot, rows([1.0] * 4), now=0.0, ttl_s=1e6)
    for each in range(200):
        assert cache.look_up(hot, 0.0)[1].tolist() == []
        new = [f"x{2 * each}", f"x{2 * each + 1}"]
        put(cache, new, rows([2.0] * 2), now=0.0, ttl_s=1e6)


def test_a_whole_number_is_found_by_its_text_and_by_itself() -> None:
    cache = RowCache(LAYOUT, 1 << 16)
    numbers = [0, 7, -3, 2**63 - 1, -(2**63) + 1]
    put(cache, [*map(str, numbers), "08", "x"], rows([*map(float, range(7))]), 0.0, 60.0)
    for ids in (np.array(numbers), [*map(str, numbers)]):
        taken = found_in(cache, ids, 0.0)
        assert taken.rows["numbers"][:, PRICE].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    others = np.array([8, 70, -(2**63)])  # "08" is another id than 8; the last has no key
    assert cache.look_up(others, 0.0)[1].tolist() == [0, 1, 2]


def test_a_number_is_not_believed_longer_than_its_row() -> None:
    cache, ids = RowCache(LAYOUT, 1 << 16), np.array([1, 2, 3])
    put(cache, ["1", "2", "3"], rows([1.0, 2.0, 3.0]), 0.0, 60.0)
    cache.expire(["2"])
    taken, absent, _ = cache.look_up(ids, 0.0)
    assert taken is not None
    assert absent.tolist() == [1]
    assert not taken.found[1]
    assert np.isnan(taken.rows["numbers"][1, PRICE])
    assert cache.look_up(ids, 61.0)[1].tolist() == [0, 1, 2]
    cache.expire_all()
    assert cache.look_up(ids, 0.0)[1].tolist() == [0, 1, 2]


def test_an_evicted_number_is_never_answered_with_the_row_that_took_its_slot() -> None:
    cache = RowCache(LAYOUT, 8 * (LAYOUT.dtype.itemsize + 300))
    for first in range(0, 300, 3):
        ids = [first, first + 1, first + 2]
        put(cache, [*map(str, ids)], rows([*map(float, ids)]), 0.0, 1e6)
        everything = np.arange(first + 3)
        taken, absent, _ = cache.look_up(everything, 0.0)
        assert taken is not None
        prices = np.delete(taken.rows["numbers"][:, PRICE], absent)
        assert prices.tolist() == np.delete(everything, absent).tolist()
        assert first + 2 not in absent


def test_a_row_is_kept_only_where_its_read_is_still_waited_for() -> None:
    cache = RowCache(LAYOUT, 1 << 16)
    put(cache, ["a", "b", "c"], rows([1.0, 2.0, 3.0]), 0.0, 10.0)
    first = cache.reserve(["a", "b", "c"], 2)
    cache.expire(["a"])  # it has changed since
    cache.reserve(["b"], 3)  # and this is being read anew
    cache.fill(first, 2, rows([4.0, 5.0, 6.0]), 20.0, 10.0)
    assert [price_of(cache, each, 20.0) for each in "abc"] == [None, None, 6.0]


def test_what_lies_in_a_slot_that_was_given_away_is_never_the_new_owners() -> None:
    cache = RowCache(LAYOUT, 0)  # two slots
    put(cache, ["a", "b"], rows([1.0, 2.0]), 0.0, 1e6)
    cache.reserve(["c", "d"], 2)
    for ids in (["a", "b"], ["c", "d"]):
        assert cache.look_up(ids, 0.0)[0] is None
        assert cache.find_stale(ids, -1e9).tolist() == [ABSENT, ABSENT]


def test_reads_that_fail_drive_out_no_more_than_one_of_them() -> None:
    cache = RowCache(LAYOUT, 8 * RowCache.bytes_for(LAYOUT, 1))
    known = list("abcdefgh")
    put(cache, known, rows([1.0] * 8), 0.0, 1e6)
    for number in range(2, 20):
        cache.release(cache.reserve(np.array([2 * number, 2 * number + 1]), number), number)
    assert len(cache.look_up(known, 0.0)[1]) == 2
    cache.release(cache.reserve(["a", "h"], 20), 20)  # they have rows, which may serve when old
    assert cache.find_stale(["a", "h"], 0.0).tolist().count(ABSENT) < 2


def test_more_ids_than_slots_keep_the_last() -> None:
    cache = RowCache(LAYOUT, 0)
    put(cache, np.arange(5), rows([*map(float, range(5))]), 0.0, 1e6)
    assert [price_of(cache, str(each), 0.0) for each in range(5)] == [None] * 3 + [3.0, 4.0]
