"""The features stage: one read for what is not in process; an answer whatever the store does."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.unit.service.features.fake_store import FEATURE_SET, LAYOUTS, key, row
from tests.unit.service.features.source_bench import (
    PATIENCE_S,
    ROWS,
    Bench,
    on_bench,
    prices,
)


def test_users_and_items_come_in_one_read() -> None:
    async def test(bench: Bench) -> None:
        fetched = await bench.fetch("u", "b", "a")
        assert len(bench.store.reads) == 1
        assert sorted(bench.store.reads[0]) == sorted(ROWS)
        assert fetched.reasons == []
        assert fetched.users.found.tolist() == [True]
        assert fetched.items.found.tolist() == [True, True]
        assert prices(fetched) == [2.5, 1.5]
        content = LAYOUTS["item"].content_hash(fetched.items.rows)
        assert fetched.items.content.tolist() == content.tolist()
        await asyncio.sleep(0.001)  # counted once nobody waits for it
        assert (bench.count("user", "found"), bench.count("item", "found")) == (1, 2)

    on_bench(test, ROWS)


def test_a_user_without_id_is_not_asked_for() -> None:
    async def test(bench: Bench) -> None:
        fetched = await bench.fetch(None, "a")
        assert bench.store.reads == [[key("item", "a")]]
        assert fetched.users.found.tolist() == [False]
        assert len(fetched.users.rows) == 1
        assert LAYOUTS["user"].missing(fetched.users.rows).all()
        assert fetched.reasons == []

    on_bench(test, ROWS)


def test_what_is_in_process_is_not_read_again() -> None:
    async def test(bench: Bench) -> None:
        await bench.fetch("u", "a")
        fetched = await bench.fetch("u", "b", "a")
        assert bench.store.reads[1:] == [[key("item", "b")]]
        assert prices(fetched) == [2.5, 1.5]
        assert fetched.users.found.tolist() == [True]
        await bench.fetch("u", "a", "b")
        assert len(bench.store.reads) == 2
        assert (bench.count("user", "cached"), bench.count("item", "cached")) == (2, 3)

    on_bench(test, ROWS)


def test_that_an_id_is_unknown_is_kept_too() -> None:
    async def test(bench: Bench) -> None:
        for _ in range(2):
            fetched = await bench.fetch("nobody", "a", "nothing")
            assert fetched.users.found.tolist() == [False]
            assert fetched.items.found.tolist() == [True, False]
            assert sorted(fetched.reasons) == ["item_not_found", "user_not_found"]
        assert len(bench.store.reads) == 1
        assert (bench.count("user", "not_found"), bench.count("item", "not_found")) == (1, 1)

    on_bench(test, ROWS)


def test_a_change_is_read_anew() -> None:
    async def test(bench: Bench) -> None:
        await bench.fetch("u", "a", "b")
        bench.store.rows[key("item", "a")] = row("item", id="a", price=9.0)
        assert bench.store.changed is not None
        bench.store.changed([key("item", "a"), "mr:other:item:0000000000000000:x", "mr:"])
        assert prices(await bench.fetch("u", "a", "b")) == [9.0, 2.5]
        assert bench.store.reads[1:] == [[key("item", "a")]]

    on_bench(test, dict(ROWS))


def test_a_change_during_a_read_is_not_overwritten_by_it() -> None:
    async def test(bench: Bench) -> None:
        bench.store.open.clear()
        reading = asyncio.ensure_future(bench.fetch("u", "a"))
        await asyncio.sleep(0.001)
        bench.store.rows[key("item", "a")] = row("item", id="a", price=9.0)
        assert bench.store.changed is not None
        bench.store.changed([key("item", "a")])
        bench.store.open.set()
        assert prices(await reading) == [1.5]  # as it was when it was read
        assert prices(await bench.fetch("u", "a")) == [9.0]

    on_bench(test, dict(ROWS))


def test_nothing_is_believed_when_changes_may_have_been_missed() -> None:
    async def test(bench: Bench) -> None:
        await bench.fetch("u", "a")
        bench.store.rows[key("item", "a")] = row("item", id="a", price=9.0)
        bench.store.generation += 1
        assert prices(await bench.fetch("u", "a")) == [9.0]

    on_bench(test, dict(ROWS))


def test_two_layouts_of_one_feature_set_do_not_meet() -> None:
    """Two model versions that read different features of the same items."""
    swapped: dict[Any, Any] = LAYOUTS | {"item": LAYOUTS["user"]}

    async def test(bench: Bench) -> None:
        await bench.fetch("u", "a")
        other = await bench.source.fetch(FEATURE_SET, swapped, None, ["a"], PATIENCE_S)
        assert other.items.found.tolist() == [False]
        another_set = await bench.source.fetch("other", LAYOUTS, None, ["a"], PATIENCE_S)
        assert another_set.items.found.tolist() == [False]
        assert prices(await bench.fetch("u", "a")) == [1.5]

    on_bench(test, ROWS)
