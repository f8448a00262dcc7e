"""What the batcher puts into which run."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import numpy as np

from tests.unit.service.scoring.fake_stages import (
    Bench,
    ByHand,
    expected,
    on_bench,
    turns,
)


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


def test_runs_teach_the_cost_line() -> None:
    async def test(bench: Bench) -> None:
        assert bench.batcher.cost.predict(10) == 0.0
        await bench.score(1, range(1, 11))
        assert bench.batcher.cost.predict(10) > 0.0

    on_bench(test)
