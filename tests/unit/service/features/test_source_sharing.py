"""Requests that want the same rows share reads, and none disturbs another."""

from __future__ import annotations

import asyncio
import logging

import numpy as np
import pytest

from service.errors import FeatureStoreUnavailable
from service.features.source import Fetched
from tests.unit.service.features.fake_store import FEATURE_SET, LAYOUTS, key, row
from tests.unit.service.features.source_bench import (
    PATIENCE_S,
    ROWS,
    Bench,
    on_bench,
    prices,
)


def test_closing_waits_for_late_reads(caplog: pytest.LogCaptureFixture) -> None:
    async def test(bench: Bench) -> None:
        bench.store.open.clear()
        bench.store.failure = FeatureStoreUnavailable("fake: gone")
        await bench.fetch("u", "a", budget_s=0.001)
        closing = asyncio.ensure_future(bench.source.close())
        await asyncio.sleep(0.005)
        assert not bench.store.closed
        bench.store.open.set()
        await closing
        assert bench.store.closed
        assert bench.store.ended == 1

    with caplog.at_level(logging.WARNING):
        on_bench(test, ROWS)
    assert "features are missing: fake: gone" in caplog.text


def test_closing_waits_for_reads_whose_request_has_left() -> None:
    async def test(bench: Bench) -> None:
        bench.store.open.clear()
        leaving = asyncio.ensure_future(bench.fetch("u", "a"))
        await asyncio.sleep(0.001)
        leaving.cancel()
        await asyncio.wait({leaving})
        assert leaving.cancelled()
        closing = asyncio.ensure_future(bench.source.close())
        await asyncio.sleep(0.005)
        bench.store.open.set()
        await closing

    on_bench(test, ROWS)


def test_what_several_requests_want_is_read_once() -> None:
    async def test(bench: Bench) -> None:
        bench.store.open.clear()
        first = asyncio.ensure_future(bench.fetch("u", "a", "b"))
        await asyncio.sleep(0.001)
        second = asyncio.ensure_future(bench.fetch("u", "c", "a"))
        third = asyncio.ensure_future(bench.fetch(None, "b"))
        await asyncio.sleep(0.001)
        bench.store.open.set()
        assert prices(await first) == [1.5, 2.5]
        assert prices(await second) == [3.5, 1.5]
        assert (await second).users.found.tolist() == [True]
        assert prices(await third) == [2.5]
        assert bench.store.reads == [[*ROWS], [key("item", "c")]]

    on_bench(test, ROWS | {key("item", "c"): row("item", id="c", price=3.5)})


def test_an_id_asked_for_twice_is_read_once() -> None:
    async def test(bench: Bench) -> None:
        assert prices(await bench.fetch("u", "a", "b", "a", "a")) == [1.5, 2.5, 1.5, 1.5]
        assert bench.store.reads == [[*ROWS]]

    on_bench(test, ROWS)


def test_numbers_and_their_texts_share_reads_and_rows() -> None:
    async def test(bench: Bench) -> None:
        async def by_number(*ids: int) -> Fetched:
            return await bench.source.fetch(FEATURE_SET, LAYOUTS, "7", np.array(ids), PATIENCE_S)

        bench.store.open.clear()
        asked = [asyncio.ensure_future(by_number(3, 1, 3))]
        await asyncio.sleep(0.001)
        asked.append(asyncio.ensure_future(bench.fetch("7", "1", "2", "x")))
        await asyncio.sleep(0.001)
        asked.append(asyncio.ensure_future(by_number(2, 3, 4)))
        await asyncio.sleep(0.001)
        bench.store.open.set()
        found = [prices(await each) for each in asked]
        assert found == [[3.0, 1.0, 3.0], [1.0, 2.0, 9.0], [2.0, 3.0, 4.0]]
        read = [[each.rpartition(":")[2] for each in keys] for keys in bench.store.reads]
        assert read == [["7", "3", "1"], ["2", "x"], ["4"]]
        assert prices(await by_number(4, 3, 2, 1)) == [4.0, 3.0, 2.0, 1.0]
        assert prices(await bench.fetch("7", "x", "1", "4")) == [9.0, 1.0, 4.0]
        assert len(bench.store.reads) == 3

    rows = {key("item", str(each)): row("item", price=float(each)) for each in (1, 2, 3, 4)}
    on_bench(test, rows | {key("item", "x"): row("item", price=9.0)})


def test_what_one_request_does_to_its_rows_no_other_sees() -> None:
    async def test(bench: Bench) -> None:
        bench.store.open.clear()
        asked = [asyncio.ensure_future(bench.fetch("u", "a", "b")) for _ in range(2)]
        await asyncio.sleep(0.001)
        bench.store.open.set()
        for each in asked:
            fetched = await each
            assert prices(fetched) == [1.5, 2.5]
            fetched.items.rows["numbers"][:] = 0.0
        assert prices(await bench.fetch("u", "a", "b")) == [1.5, 2.5]

    on_bench(test, ROWS)


def test_nobody_joins_a_read_of_what_has_changed_since() -> None:
    async def test(bench: Bench) -> None:
        bench.store.open.clear()
        before = asyncio.ensure_future(bench.fetch("u", "a"))
        await asyncio.sleep(0.001)
        bench.store.rows[key("item", "a")] = row("item", id="a", price=9.0)
        assert bench.store.changed is not None
        bench.store.changed([key("item", "a")])
        after = asyncio.ensure_future(bench.fetch("u", "a"))
        await asyncio.sleep(0.001)
        bench.store.open.set()
        assert prices(await before) == [1.5]
        assert prices(await after) == [9.0]
        assert prices(await bench.fetch("u", "a")) == [9.0]

    on_bench(test, dict(ROWS))


def test_a_request_that_leaves_takes_nothing_from_those_who_joined() -> None:
    async def test(bench: Bench) -> None:
        bench.store.open.clear()
        leaving = asyncio.ensure_future(bench.fetch("u", "a"))
        await asyncio.sleep(0.001)
        staying = asyncio.ensure_future(bench.fetch("u", "a"))
        await asyncio.sleep(0.001)
        leaving.cancel()
        bench.store.open.set()
        assert prices(await staying) == [1.5]
        assert len(bench.store.reads) == 1

    on_bench(test, ROWS)
