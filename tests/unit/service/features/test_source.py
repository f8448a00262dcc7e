"""The features stage: one read for what is not in process; an answer whatever the store does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import pytest

from service.errors import FeatureStoreUnavailable
from service.features.source import FeatureSource, Fetched
from service.metrics import Metrics
from tests.unit.service.features.fake_store import FEATURE_SET, LAYOUTS, FakeStore, key, row

PATIENCE_S = 10.0


class Bench:
    """A source on a fake store, and its metrics."""

    def __init__(
        self, store: FakeStore, on_failure: Literal["defaults", "error"], timeout_s: float
    ) -> None:
        self.store = store
        self.metrics = Metrics()
        self.source = FeatureSource(
            store,
            timeout_s=timeout_s,
            on_failure=on_failure,
            cache_bytes=1 << 20,
            ttl_s=60.0,
            metrics=self.metrics,
        )

    async def fetch(self, user: str | None, *items: str, budget_s: float = PATIENCE_S) -> Fetched:
        return await self.source.fetch(FEATURE_SET, LAYOUTS, user, list(items), budget_s)

    def count(self, entity: str, outcome: str) -> float:
        labels = {"entity": entity, "outcome": outcome}
        return self.metrics.registry.get_sample_value("multirank_feature_rows_total", labels) or 0

    def failures(self, reason: str) -> float:
        return (
            self.metrics.registry.get_sample_value(
                "multirank_feature_failures_total", {"reason": reason}
            )
            or 0
        )


def on_bench(
    test: Callable[[Bench], Awaitable[None]],
    rows: dict[str, bytes] | None = None,
    on_failure: Literal["defaults", "error"] = "defaults",
    timeout_s: float = PATIENCE_S,
) -> None:
    async def run() -> None:
        bench = Bench(FakeStore(rows), on_failure, timeout_s)
        bench.source.start()
        await asyncio.sleep(0)
        await test(bench)
        bench.store.open.set()
        if not bench.store.closed:
            await bench.source.close()
        assert bench.store.closed

    asyncio.run(asyncio.wait_for(run(), 2 * PATIENCE_S))


ROWS = {
    key("user", "u"): row("user", age=40),
    key("item", "a"): row("item", id="a", price=1.5),
    key("item", "b"): row("item", id="b", price=2.5),
}


def prices(fetched: Fetched) -> list[float]:
    start = LAYOUTS["item"].slots["price"].start
    found: list[float] = fetched.items.rows["numbers"][:, start].tolist()
    return found


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


@pytest.mark.parametrize(
    ("blob", "outcome"),
    [
        (row("item", price=1.0)[:-1], "corrupt"),
        (row("item", price=1.0)[:-1] + b"\xff", "corrupt"),
        (row("user", age=1), "foreign_layout"),
        (b"", "corrupt"),
    ],
)
def test_rows_that_cannot_be_trusted_are_counted_and_said(blob: bytes, outcome: str) -> None:
    async def test(bench: Bench) -> None:
        fetched = await bench.fetch("u", "a", "b")
        assert fetched.items.found.tolist() == [True, False]
        assert LAYOUTS["item"].missing(fetched.items.rows)[1].all()
        assert fetched.reasons == [f"item_{outcome}"]
        assert bench.count("item", outcome) == 1
        assert bench.count("item", "found") == 1

    on_bench(test, ROWS | {key("item", "b"): blob})


def test_a_failing_store_is_defaults_and_a_reason(caplog: pytest.LogCaptureFixture) -> None:
    async def test(bench: Bench) -> None:
        bench.store.failure = FeatureStoreUnavailable("fake: connection refused")
        fetched = await bench.fetch("u", "a", "b")
        assert fetched.reasons == ["fake_unavailable"]
        assert not fetched.users.found.any()
        assert not fetched.items.found.any()
        assert LAYOUTS["item"].missing(fetched.items.rows).all()
        assert bench.failures("fake_unavailable") == 1
        # and is asked again the next time: a failure is not kept
        bench.store.failure = None
        assert prices(await bench.fetch("u", "a", "b")) == [1.5, 2.5]

    with caplog.at_level(logging.WARNING):
        on_bench(test, ROWS)
    assert "connection refused" in caplog.text


def test_a_failing_store_gives_what_is_in_process() -> None:
    async def test(bench: Bench) -> None:
        await bench.fetch("u", "a")
        bench.store.failure = FeatureStoreUnavailable("fake: connection refused")
        fetched = await bench.fetch("u", "a", "b")
        assert fetched.reasons == ["fake_unavailable"]
        assert fetched.items.found.tolist() == [True, False]
        assert prices(fetched)[0] == 1.5
        assert (await bench.fetch("u", "a")).reasons == []

    on_bench(test, ROWS)


@pytest.mark.parametrize("late", [False, True])
def test_an_operator_may_want_an_error_instead(late: bool) -> None:
    async def test(bench: Bench) -> None:
        if late:
            bench.store.open.clear()
        else:
            bench.store.failure = FeatureStoreUnavailable("fake: connection refused")
        with pytest.raises(FeatureStoreUnavailable) as caught:
            await bench.fetch("u", "a", budget_s=0.01)
        assert ("no answer within 10 ms" if late else "connection refused") in caught.value.detail
        assert bench.failures("fake_timeout" if late else "fake_unavailable") == 1

    on_bench(test, ROWS, on_failure="error")


@pytest.mark.parametrize(("budget_s", "timeout_s"), [(0.01, PATIENCE_S), (PATIENCE_S, 0.01)])
def test_a_late_read_is_not_waited_for_and_not_cancelled(budget_s: float, timeout_s: float) -> None:
    async def test(bench: Bench) -> None:
        bench.store.open.clear()
        fetched = await bench.fetch("u", "a", budget_s=budget_s)
        assert fetched.reasons == ["fake_timeout"]
        assert not fetched.items.found.any()
        assert bench.failures("fake_timeout") == 1
        assert bench.store.ended == 0
        bench.store.open.set()
        await asyncio.sleep(0.001)
        assert bench.store.ended == 1

    on_bench(test, ROWS, timeout_s=timeout_s)


def test_no_time_left_is_a_timeout() -> None:
    async def test(bench: Bench) -> None:
        bench.store.open.clear()
        assert (await bench.fetch("u", "a", budget_s=-1.0)).reasons == ["fake_timeout"]

    on_bench(test, ROWS)


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
    assert "a late read of the feature store failed" in caplog.text


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


def test_surprises_are_not_hidden() -> None:
    """Only the store's own word is taken for a failure of the store."""

    async def test(bench: Bench) -> None:
        bench.store.failure = ZeroDivisionError("a bug")
        with pytest.raises(ZeroDivisionError):
            await bench.fetch("u", "a")

    on_bench(test, ROWS)


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
