"""A run that fails: who is told, and that it harms nobody else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from service.errors import InferenceFailed
from tests.unit.service.scoring.fake_stages import (
    Array,
    Bench,
    ByHand,
    Thrown,
    expected,
    on_bench,
    turns,
)


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
