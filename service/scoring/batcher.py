"""The batch stage: candidates of several requests packed into one run of one model version.

A run starts at once when none is in flight, and takes what has gathered in the queue (`queue.py`)
when one ends. A run that throws is tried again request by request; one that had to be ended is not.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Sequence, Sized
from concurrent.futures import Executor, Future
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt

from service.errors import InferenceFailed
from service.metrics import Metrics
from service.scoring.cost import CostLine
from service.scoring.item_cache import ItemTensors
from service.scoring.queue import Answer, Job, RowQueue, Segment
from service.scoring.runs import Ended
from service.values import Candidates, Scores, UserSide

log = logging.getLogger(__name__)
Tensor = npt.NDArray[np.float32]


class Stages(Protocol):
    """What the batcher runs; `stages.StagedModel` is the real one."""

    def user(self, users: UserSide) -> Tensor:
        """User tensors [U, P]."""

    def item(self, items: Sequence[Candidates]) -> ItemTensors:
        """Item tensors [N, P] of N items in parts; good until the next call."""

    def joint(
        self, user_tensor: Tensor, item_tensors: ItemTensors, user_row: npt.NDArray[np.int64]
    ) -> Scores:
        """Task scores [N, T]."""


class Batcher:
    """Packs requests into runs of one model version, one run at a time.

    Args:
        model: name for metrics and messages.
        stages: the sessions to run, called on a thread of `executor`.
        row_budget, queue_rows: as in `RowQueue`.
    """

    def __init__(
        self,
        model: str,
        stages: Stages,
        executor: Executor,
        row_budget: int,
        queue_rows: int,
        metrics: Metrics,
    ) -> None:
        self._model = model
        self._stages = stages
        self._executor = executor
        self.cost = CostLine()
        self._queue = RowQueue(model, row_budget, queue_rows, self.cost, metrics)
        self._run_failures = metrics.run_failures.labels(model)
        self._run_ends: float | None = None  # expected end of the run in flight
        self._run_rows = metrics.run_rows.labels(model)
        self._run_requests = metrics.run_requests.labels(model)
        self._run_seconds = metrics.run_seconds.labels(model)

    def wait_s(self) -> float:
        """Seconds until rows that came now are expected to be taken."""
        return self._in_flight_s(time.monotonic()) + self._queue.wait_s()

    def _in_flight_s(self, now: float) -> float:
        return max((self._run_ends or now) - now, 0.0)

    async def score(self, users: UserSide, items: Candidates, deadline: float) -> Answer:
        """Score the N candidates of one request.

        Args:
            users: one row. items: N rows. deadline: time.monotonic() seconds.

        Raises:
            QueueFull: no room in the queue.
            DeadlineExceeded: the deadline has passed, or would before the scores are there.
            InferenceFailed: the model failed on this request's rows.
        """
        now = time.monotonic()
        job = Job(users, items, deadline, now, asyncio.get_running_loop().create_future())
        self._queue.push(job, now, self._in_flight_s(now))
        self._start_run()
        try:
            return await job.future
        except asyncio.CancelledError:
            self._queue.drop(job, "abandoned")
            raise

    def _start_run(self) -> None:
        if self._run_ends is not None:
            return
        started = time.monotonic()
        segments = self._queue.take(started)
        if not segments:
            return
        for segment in segments:
            if segment.job.started is None:
                segment.job.started = started
        rows = sum(segment.rows for segment in segments)
        self._run_ends = started + self.cost.predict(rows)
        loop = asyncio.get_running_loop()
        try:
            run = self._executor.submit(self._run, segments)
        except RuntimeError as error:  # the executor is shut down
            lost: list[Scores | Exception] = [error] * len(segments)
            loop.call_soon(self._finish_run, segments, started, lost)
        else:
            run.add_done_callback(partial(self._report, loop, segments, started))

    def _report(
        self,
        loop: asyncio.AbstractEventLoop,
        segments: list[Segment],
        started: float,
        run: Future[list[Scores | Exception]],
    ) -> None:
        """Hand a run's outcomes to the event loop; called where the run has ended."""
        outcomes: list[Scores | Exception]
        if run.cancelled():
            outcomes = [RuntimeError("the run was given up")] * len(segments)
        else:
            outcomes = run.result()
        loop.call_soon_threadsafe(self._finish_run, segments, started, outcomes)

    def _finish_run(
        self, segments: list[Segment], started: float, outcomes: list[Scores | Exception]
    ) -> None:
        ended = time.monotonic()
        self._run_ends = None
        rows = sum(segment.rows for segment in segments)
        if not any(isinstance(each, Ended) for each in outcomes):
            self.cost.observe(rows, ended - started)
        self._run_rows.observe(rows)
        self._run_requests.observe(len(segments))
        self._run_seconds.observe(ended - started)
        for segment, outcome in zip(segments, outcomes, strict=True):
            self._deliver(segment, outcome, ended)
        self._start_run()

    def _deliver(self, segment: Segment, outcome: Scores | Exception, ended: float) -> None:
        job = segment.job
        if job.future.done():
            return
        if isinstance(outcome, Exception):
            failure = InferenceFailed(f"{self._model}: {outcome}")
            failure.__cause__ = outcome
            job.future.set_exception(failure)
            return
        job.parts.append(outcome)
        job.finished += segment.rows
        if job.finished == len(job.items):
            assert job.started is not None  # it has run
            scores = job.parts[0] if len(job.parts) == 1 else np.concatenate(job.parts)
            job.future.set_result(Answer(scores, job.started - job.submitted, ended - job.started))

    def _run(self, segments: list[Segment]) -> list[Scores | Exception]:
        """Score segments, on a thread: one outcome each, whatever happens."""
        try:
            return list(self._run_together(segments))
        except Ended as error:  # each of them alone might take as long
            self._run_failures.inc()
            log.error("%s: a run of %d requests: %s", self._model, len(segments), error)  # noqa: TRY400
            return [error] * len(segments)
        except Exception as error:
            self._run_failures.inc()
            if len(segments) == 1:
                log.exception("%s: a run of one request failed", self._model)
                return [error]
            log.warning("%s: a run of %d requests failed: %s", self._model, len(segments), error)
        return [self._run([segment])[0] for segment in segments]

    def _run_together(self, segments: Sequence[Segment]) -> Sequence[Scores]:
        new = [segment.job for segment in segments if segment.job.user_tensor is None]
        if new:
            tensors = self._stages.user(UserSide.concatenate([job.users for job in new]))
            _check_rows("user tensors", tensors, len(new))
            for row, job in enumerate(new):
                job.user_tensor = tensors[row : row + 1]
        items = self._stages.item([s.job.items.take(slice(s.start, s.stop)) for s in segments])
        counts = [segment.rows for segment in segments]
        _check_rows("item tensors", items, sum(counts))
        user_row = np.repeat(np.arange(len(segments)), counts)
        user_tensor = np.concatenate(
            [s.job.user_tensor for s in segments if s.job.user_tensor is not None]
        )
        scores = self._stages.joint(user_tensor, items, user_row)
        _check_rows("score rows", scores, sum(counts))
        ends = itertools.accumulate(counts)
        return [scores[end - rows : end] for rows, end in zip(counts, ends, strict=True)]


def _check_rows(what: str, found: Sized, expected: int) -> None:
    if len(found) != expected:  # would be broadcast, or give one request the rows of another
        raise ValueError(f"{len(found)} {what} where {expected} are due")
