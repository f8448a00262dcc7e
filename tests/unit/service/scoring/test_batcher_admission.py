"""Who the batcher turns away, who leaves, and who would be too late."""

from __future__ import annotations

import asyncio
import time

import pytest

from service.errors import DeadlineExceeded, QueueFull
from service.scoring import queue
from tests.unit.service.scoring.fake_stages import (
    Bench,
    expected,
    on_bench,
    turns,
    until,
)


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


def test_a_machine_that_stood_still_is_not_held_against_requests_for_ever() -> None:
    async def test(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(queue, "_DOUBT_S", 0.0)
        bench.batcher.cost.observe(1, 30.0)
        refused = 0
        while True:
            try:
                answer = await bench.score(1, [1], within_s=3)
            except DeadlineExceeded:
                refused += 1
            else:
                break
        assert answer.scores.tolist() == expected(1, [1])
        assert 0 < refused < 10

    with pytest.MonkeyPatch.context() as monkeypatch:
        on_bench(lambda bench: test(bench, monkeypatch))


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
