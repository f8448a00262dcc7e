"""Features when the store fails, is late or holds damage: what serves, what is said."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

import pytest

from service.errors import FeatureStoreUnavailable
from service.values import OnFailure
from tests.unit.service.features.fake_store import FEATURE_SET, LAYOUTS, key, row
from tests.unit.service.features.source_bench import (
    PATIENCE_S,
    ROWS,
    Bench,
    on_bench,
    prices,
)


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


def test_surprises_are_not_hidden() -> None:
    """Only the store's own word is taken for a failure of the store."""

    async def test(bench: Bench) -> None:
        bench.store.failure = ZeroDivisionError("a bug")
        with pytest.raises(ZeroDivisionError):
            await bench.fetch("u", "a")

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
