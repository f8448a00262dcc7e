"""The features stage: one read for what is not in process; an answer whatever the store does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import numpy as np
import pytest

from service.errors import FeatureStoreUnavailable
from service.features.source import FeatureSource, Fetched, OnFailure
from service.metrics import Metrics
from tests.unit.service.features.fake_store import FEATURE_SET, LAYOUTS, FakeStore, key, row

PATIENCE_S = 10.0


class Bench:
    """A source on a fake store, and its metrics."""

    def __init__(
        self,
        store: FakeStore,
        on_failure: Mapping[str, OnFailure],
        timeout_s: float,
        stale_s: float = 0.0,
        ttl_s: float = 60.0,
    ) -> None:
        self.store = store
        self.metrics = Metrics()
        self.source = FeatureSource(
            store,
            timeout_s=timeout_s,
            on_failure=on_failure,
            cache_bytes=1 << 20,
            ttl_s=ttl_s,
            stale_s=stale_s,
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
    on_failure: OnFailure | Mapping[str, OnFailure] = "defaults",
    timeout_s: float = PATIENCE_S,
    stale_s: float = 0.0,
    ttl_s: float = 60.0,
) -> None:
    policy = {"": on_failure} if isinstance(on_failure, str) else on_failure

    async def run() -> None:
        bench = Bench(FakeStore(rows), policy, timeout_s, stale_s, ttl_s)
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
        assert (await bench.fetch("u", "a", "b")).reasons == [f"item_{outcome}"]  # from process too
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
        reason = "fake_timeout" if late else "fake_unavailable"
        assert caught.value.detail.startswith(
            f"{reason}: 1 user rows could not be read within 5 ms"
        )
        assert bench.failures(reason) == 1

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
        # and what it brought is kept
        assert prices(await bench.fetch("u", "a")) == [1.5]
        assert len(bench.store.reads) == 1

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


def test_half_of_what_a_request_has_left_is_for_its_features() -> None:
    async def test(bench: Bench) -> None:
        bench.store.open.clear()
        with pytest.raises(FeatureStoreUnavailable, match="within 20 ms"):
            await bench.fetch("u", "a", budget_s=0.04)

    on_bench(test, ROWS, on_failure="error")


class TestWithoutTheStore:
    """Old rows first, up to their age; then defaults or an error, as the operator wants."""

    def test_old_rows_serve_and_are_counted(self) -> None:
        async def test(bench: Bench) -> None:
            await bench.fetch("u", "a", "nothing")
            bench.store.generation += 1  # any row may have changed since
            bench.store.failure = FeatureStoreUnavailable("fake: gone")
            fetched = await bench.fetch("u", "a", "b", "nothing")
            assert fetched.stale == {"user": 1, "item": 1}
            assert fetched.reasons == ["fake_unavailable", "user_stale", "item_stale"]
            assert fetched.items.found.tolist() == [True, False, False]
            assert prices(fetched)[0] == 1.5
            assert (bench.count("item", "stale"), bench.count("item", "unread")) == (1, 2)

        on_bench(test, ROWS, stale_s=60.0)

    def test_rows_that_have_changed_serve_until_they_can_be_read(self) -> None:
        async def test(bench: Bench) -> None:
            await bench.fetch("u", "a")
            bench.store.rows[key("item", "a")] = row("item", id="a", price=9.0)
            bench.store.failure = FeatureStoreUnavailable("fake: gone")
            assert bench.store.changed is not None
            bench.store.changed([key("item", "a")])
            fetched = await bench.fetch("u", "a")
            assert (prices(fetched), fetched.stale) == ([1.5], {"item": 1})
            bench.store.failure = None
            fetched = await bench.fetch("u", "a")
            assert (prices(fetched), fetched.stale, fetched.reasons) == ([9.0], {}, [])

        on_bench(test, dict(ROWS), stale_s=60.0)

    def test_older_than_the_set_age_they_do_not(self) -> None:
        async def test(bench: Bench) -> None:
            await bench.fetch("u", "a")
            await asyncio.sleep(0.06)
            bench.store.failure = FeatureStoreUnavailable("fake: gone")
            fetched = await bench.fetch("u", "a")
            assert (fetched.stale, fetched.reasons) == ({}, ["fake_unavailable"])
            assert not fetched.items.found.any()

        on_bench(test, ROWS, stale_s=0.05, ttl_s=0.01)

    @pytest.mark.parametrize(
        ("policy", "error"),
        [
            ({"": "error"}, True),
            ({"": "defaults", "item": "error"}, True),
            ({"": "defaults", "user": "error"}, False),
            ({"": "error", FEATURE_SET: "defaults"}, False),
            ({"": "defaults", FEATURE_SET: "defaults", f"{FEATURE_SET}/item": "error"}, True),
            ({"": "defaults", "another": "error", "another/item": "error"}, False),
        ],
    )
    def test_the_closest_setting_counts(self, policy: Mapping[str, OnFailure], error: bool) -> None:
        async def test(bench: Bench) -> None:
            bench.store.failure = FeatureStoreUnavailable("fake: gone")
            if error:
                with pytest.raises(FeatureStoreUnavailable, match="1 item rows"):
                    await bench.fetch(None, "a")
            else:
                assert (await bench.fetch(None, "a")).reasons == ["fake_unavailable"]

        on_bench(test, ROWS, on_failure=policy)

    def test_old_rows_are_better_than_an_error(self) -> None:
        async def test(bench: Bench) -> None:
            await bench.fetch("u", "a")
            bench.store.generation += 1
            bench.store.failure = FeatureStoreUnavailable("fake: gone")
            assert (await bench.fetch("u", "a")).stale == {"user": 1, "item": 1}

        on_bench(test, ROWS, on_failure="error", stale_s=60.0)

    def test_it_is_left_alone_and_asked_again(self) -> None:
        async def test(bench: Bench) -> None:
            bench.store.failure = FeatureStoreUnavailable("fake: gone")
            for _ in range(3):
                assert (await bench.fetch("u", "a")).reasons == ["fake_unavailable"]
            assert (await bench.fetch("u", "a")).reasons == ["fake_circuit_open"]
            assert len(bench.store.reads) == 3
            assert bench.failures("fake_circuit_open") == 1
            bench.store.failure = None
            while (fetched := await bench.fetch("u", "a")).reasons:
                assert fetched.reasons == ["fake_circuit_open"]
                await asyncio.sleep(0.01)
            assert prices(fetched) == [1.5]
            assert len(bench.store.reads) == 4

        on_bench(test, ROWS)

    def test_late_answers_count_and_an_answer_after_all_makes_up_for_them(self) -> None:
        async def test(bench: Bench) -> None:
            bench.store.open.clear()
            for number in range(3):
                fetched = await bench.fetch(None, f"i{number}")
                assert fetched.reasons == ["fake_timeout"]
            assert (await bench.fetch(None, "a")).reasons == ["fake_circuit_open"]
            bench.store.open.set()
            await asyncio.sleep(0.001)
            assert prices(await bench.fetch(None, "a")) == [1.5]

        on_bench(test, ROWS, timeout_s=0.01)
