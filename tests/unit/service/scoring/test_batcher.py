"""The batcher's rules, one by one: who waits, who runs, who is turned away."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import numpy as np
import pytest

from service.errors import DeadlineExceeded, InferenceFailed, QueueFull
from tests.unit.service.scoring.fake_stages import (
    Array,
    Bench,
    Thrown,
    expected,
    on_bench,
    turns,
    until,
)


class ByHand(Executor):
    """Runs what was submitted when the test says so."""

    def __init__(self) -> None:
        self.submitted: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.submitted.append((future, lambda: fn(*args, **kwargs)))
        return future

    def run(self) -> None:
        future, work = self.submitted.pop(0)
        future.set_result(work())


def test_an_idle_batcher_starts_at_once() -> None:
    """In the very turn of the loop in which the request comes: nothing is waited for."""
    threads = ByHand()

    async def test(bench: Bench) -> None:
        running = bench.submit(1, [1, 2])
        await asyncio.sleep(0)
        assert len(threads.submitted) == 1
        assert bench.value("queued_rows") == 0
        threads.run()
        answer = await running
        assert answer.scores.tolist() == expected(1, [1, 2])
        assert answer.scores.dtype == np.float32

    on_bench(test, executor=threads)


def test_one_run_at_a_time_and_all_that_gathered_in_the_next() -> None:
    threads = ByHand()

    async def test(bench: Bench) -> None:
        tasks = [bench.submit(request, [request]) for request in (1, 2, 3)]
        await turns()
        assert len(threads.submitted) == 1
        threads.run()
        await turns()
        assert len(threads.submitted) == 1
        threads.run()
        await asyncio.gather(*tasks)
        assert bench.stages.runs == [[(1, 1)], [(2, 2), (3, 3)]]
        assert bench.stages.user_runs == [[1], [2, 3]]
        assert bench.value("run_requests_sum") == 3

    on_bench(test, executor=threads)


def test_rows_are_counted_not_requests() -> None:
    async def test(bench: Bench) -> None:
        running = await bench.occupy()
        tasks = [bench.submit(request, range(1, 5)) for request in (1, 2, 3, 4, 5)]
        await turns()
        assert bench.value("queued_rows") == 20
        bench.stages.release()
        await asyncio.gather(running, *tasks)
        assert [len(run) for run in bench.stages.runs] == [1, 10, 10]

    on_bench(test, row_budget=10)


def test_a_large_request_is_split_and_its_user_computed_once() -> None:
    async def test(bench: Bench) -> None:
        items = list(range(1, 38))
        answer = await bench.score(7, items)
        assert answer.scores.tolist() == expected(7, items)
        assert [len(run) for run in bench.stages.runs] == [4] * 9 + [1]
        assert bench.stages.user_runs == [[7]]

    on_bench(test, row_budget=32)


def test_a_large_request_has_an_eighth_of_a_run_and_small_ones_the_rest() -> None:
    async def test(bench: Bench) -> None:
        running = await bench.occupy()
        large = bench.submit(1, range(1, 22), within_s=60)
        await turns()
        urgent = bench.submit(2, [50, 51], within_s=30)
        patient = bench.submit(3, [60, 61], within_s=90)
        await turns()
        bench.stages.release()
        for task, request, items in (
            (large, 1, range(1, 22)),
            (urgent, 2, [50, 51]),
            (patient, 3, [60, 61]),
        ):
            assert (await task).scores.tolist() == expected(request, items)
        await running
        runs = [Counter(request for request, _ in run) for run in bench.stages.runs[1:]]
        assert runs == [{1: 2, 2: 2, 3: 2}, *[{1: 2}] * 9, {1: 1}]

    on_bench(test, row_budget=16)


def test_equal_deadlines_are_served_in_the_order_they_came() -> None:
    async def test(bench: Bench) -> None:
        running = await bench.occupy()
        deadline = time.monotonic() + 60
        tasks = [
            asyncio.ensure_future(bench.score_by(request, [request], deadline))
            for request in (3, 1, 2)
        ]
        await turns()
        bench.stages.release()
        await asyncio.gather(running, *tasks)
        assert bench.stages.rows[1:] == [(3, 3), (1, 1), (2, 2)]

    on_bench(test)


def test_a_run_that_throws_is_retried_request_by_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test(bench: Bench) -> None:
        running = await bench.occupy()
        tasks = [bench.submit(request, [request, request + 10]) for request in (1, 2, 3)]
        await turns()
        bench.stages.release()
        good, bad, other = await asyncio.gather(*tasks, return_exceptions=True)
        await running
        assert not isinstance(good, BaseException)
        assert not isinstance(other, BaseException)
        assert good.scores.tolist() == expected(1, [1, 11])
        assert other.scores.tolist() == expected(3, [3, 13])
        assert isinstance(bad, InferenceFailed)
        assert isinstance(bad.__cause__, Thrown)
        assert bad.detail == "m: poisoned by [12]"
        # the first, the run of three, and then each alone
        assert bench.stages.attempts == 5
        assert bench.value("run_failures_total") == 2
        # the batcher goes on
        assert (await bench.score(4, [4])).scores.tolist() == expected(4, [4])

    with caplog.at_level(logging.WARNING):
        on_bench(test, poison=[12])
    assert "a run of 3 requests failed" in caplog.text


def test_a_request_that_failed_in_part_runs_no_further() -> None:
    async def test(bench: Bench) -> None:
        with pytest.raises(InferenceFailed):
            await bench.score(1, range(1, 51))
        assert bench.stages.runs == []
        assert bench.stages.attempts == 1
        assert bench.value("queued_rows") == 0
        with pytest.raises(InferenceFailed):  # and when a later part fails
            await bench.score(2, [*range(10, 15), 1, *range(30, 70)])
        assert [len(run) for run in bench.stages.runs] == [5]
        assert bench.stages.attempts == 3

    on_bench(test, row_budget=40, poison=[1])


def fewer(rows: Array) -> Array:
    return rows[:-1]


def more(rows: Array) -> Array:
    return np.concatenate((rows, rows[:1]))


@pytest.mark.parametrize(
    ("stage", "reshape", "together"),
    [
        ("user", fewer, 1),
        pytest.param("user", fewer, 2),
        pytest.param("user", more, 1),
        pytest.param("user", more, 2),
        *((s, r, n) for s in ("item", "joint") for r in (fewer, more) for n in (1, 2)),
    ],
)
def test_another_number_of_rows_is_a_failure(
    stage: str, reshape: Callable[[Array], Array], together: int
) -> None:
    async def test(bench: Bench) -> None:
        running = await bench.occupy()
        tasks = [bench.submit(request, [1, 2, 3]) for request in range(1, together + 1)]
        await turns()
        bench.stages.reshape[stage] = reshape
        bench.stages.release()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(running, return_exceptions=True)
        assert [type(each) for each in found] == [InferenceFailed] * together

    on_bench(test)


def test_one_item_row_is_not_spread_over_all() -> None:
    """numpy and ONNX would broadcast it: every candidate would get the first one's scores."""

    async def test(bench: Bench) -> None:
        with pytest.raises(InferenceFailed):
            await bench.score(1, [1, 2, 3])

    on_bench(test, reshape={"item": lambda rows: rows[:1]})


def test_a_full_queue_turns_away_at_once_and_says_when_to_come_back() -> None:
    async def test(bench: Bench) -> None:
        bench.batcher.cost.observe(100, 1.0)
        bench.batcher.cost.observe(200, 2.0)
        running = await bench.occupy()
        waiting = bench.submit(1, range(1, 51))
        await turns()
        with pytest.raises(QueueFull) as caught:
            await bench.score(2, range(1, 52))
        assert caught.value.retry_after_s == pytest.approx(0.5)
        assert caught.value.detail == "m: 50 candidate rows are waiting, 100 is the limit"
        fits = bench.submit(3, range(1, 51))
        await turns()
        assert bench.value("queued_rows") == 100
        with pytest.raises(QueueFull):
            await bench.score(4, [1])
        bench.stages.release()
        await asyncio.gather(running, waiting, fits)
        assert {request for request, _ in bench.stages.rows} == {0, 1, 3}
        assert (await bench.score(4, [1])).scores.tolist() == expected(4, [1])

    on_bench(test, queue_rows=100)


def test_a_request_larger_than_the_queue_is_let_in_when_none_waits() -> None:
    async def test(bench: Bench) -> None:
        running = await bench.occupy()
        large = bench.submit(1, range(1, 51))
        await turns()
        bench.stages.release()
        answer = await large
        await running
        assert answer.scores.tolist() == expected(1, range(1, 51))

    on_bench(test, queue_rows=10, row_budget=20)


def test_who_left_makes_room_in_the_queue() -> None:
    async def test(bench: Bench) -> None:
        running = await bench.occupy()
        leaving = bench.submit(1, range(1, 11))
        await turns()
        leaving.cancel()
        await turns()
        staying = bench.submit(2, range(1, 11))
        await turns()
        bench.stages.release()
        await asyncio.gather(running, staying)
        assert leaving.cancelled()
        assert bench.dropped("abandoned") == 1

    on_bench(test, queue_rows=10)


def test_who_leaves_during_the_run_disturbs_nobody() -> None:
    async def test(bench: Bench) -> None:
        running = await bench.occupy()
        tasks = [bench.submit(request, range(1, 8)) for request in (1, 2)]
        running.cancel()
        await turns()
        bench.stages.release()
        await until(lambda: len(bench.stages.runs) >= 1)
        for request, task in enumerate(tasks, 1):
            assert (await task).scores.tolist() == expected(request, range(1, 8))
        assert running.cancelled()

    on_bench(test, row_budget=3)


def test_a_split_request_whose_client_leaves_halfway_runs_no_further() -> None:
    async def test(bench: Bench) -> None:
        bench.stages.hold()
        leaving = bench.submit(1, range(1, 31))
        await bench.stages.held()
        leaving.cancel()
        await turns()
        assert bench.value("queued_rows") == 0
        bench.stages.release()
        answer = await bench.score(2, [1])
        assert answer.scores.tolist() == expected(2, [1])
        assert [len(run) for run in bench.stages.runs] == [2, 1]

    on_bench(test, row_budget=16)


def test_who_cannot_be_in_time_is_told_at_once() -> None:
    async def test(bench: Bench) -> None:
        bench.batcher.cost.observe(100, 10.0)
        bench.batcher.cost.observe(200, 20.0)
        with pytest.raises(DeadlineExceeded) as caught:
            await bench.score(1, range(1, 51), within_s=3)
        assert "50 candidates behind 0 waiting rows need about 5000.0 ms" in caught.value.detail
        assert bench.stages.attempts == 0
        assert bench.stages.user_runs == []
        assert bench.dropped("predicted_late") == 1
        assert (await bench.score(2, [1], within_s=3)).scores.tolist() == expected(2, [1])

    on_bench(test)


def test_what_waits_ahead_counts_and_what_waits_behind_does_not() -> None:
    async def test(bench: Bench) -> None:
        bench.batcher.cost.observe(100, 100.0)
        bench.batcher.cost.observe(200, 200.0)
        running = await bench.occupy()
        ahead = bench.submit(1, range(1, 61), within_s=65)
        await turns()
        with pytest.raises(DeadlineExceeded, match="10 candidates behind 60 waiting rows"):
            await bench.score(2, range(1, 11), within_s=68)
        urgent = bench.submit(3, range(1, 11), within_s=40)
        await turns()
        assert not urgent.done()
        bench.stages.release()
        await asyncio.gather(running, ahead, urgent)
        assert [request for request, _ in bench.stages.rows[1:]] == [3] * 10 + [1] * 60

    on_bench(test)


def test_who_has_waited_too_long_costs_no_run() -> None:
    async def test(bench: Bench) -> None:
        running = await bench.occupy()
        late = bench.submit(1, [1, 2], within_s=0.02)
        other = bench.submit(2, [3])
        await turns()
        deadline = time.monotonic() + 0.02
        await until(lambda: time.monotonic() > deadline)
        assert not late.done()  # nothing is known of how long the run in flight will take
        bench.stages.release()
        with pytest.raises(DeadlineExceeded, match=r"waited .* ms in the queue"):
            await late
        await asyncio.gather(running, other)
        assert bench.stages.rows == [(0, 0), (2, 3)]
        assert bench.stages.user_runs == [[0], [2]]
        assert bench.dropped("late") == 1
        assert bench.value("queued_rows") == 0

    on_bench(test)


def test_a_deadline_that_has_passed() -> None:
    async def test(bench: Bench) -> None:
        with pytest.raises(DeadlineExceeded, match=r"0\.0 ms are left"):
            await bench.score(1, [1], within_s=-1)
        assert bench.stages.attempts == 0

    on_bench(test)


def test_runs_teach_the_cost_line() -> None:
    async def test(bench: Bench) -> None:
        assert bench.batcher.cost.predict(10) == 0.0
        await bench.score(1, range(1, 11))
        assert bench.batcher.cost.predict(10) > 0.0

    on_bench(test)


class Broken(ByHand):
    """A thread pool that takes nothing more."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        if self.submitted:
            raise RuntimeError("cannot schedule new futures after shutdown")
        return super().submit(fn, *args, **kwargs)


def test_a_broken_executor_leaves_nobody_hanging() -> None:
    threads = Broken()

    async def test(bench: Bench) -> None:
        first = bench.submit(1, [1])
        second = bench.submit(2, [2])
        await turns()
        future, _ = threads.submitted[0]
        future.cancel()  # as shutdown(cancel_futures=True) does
        hanging = (await asyncio.wait({first, second}, timeout=1))[1]
        for each in hanging:
            each.cancel()
        found = await asyncio.gather(first, second, return_exceptions=True)
        assert [type(each) for each in found] == [InferenceFailed] * 2

    on_bench(test, executor=threads)
