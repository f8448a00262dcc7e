"""The batch stage: candidates of several requests packed into one run of one model version.

What it counts is rows. A run starts at once when none is in flight, and takes what has gathered
when one ends: earliest deadline first, up to the row budget, a large request over several runs.
Whoever has left, or can no longer be answered in time, is dropped before costing a run.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import time
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt

from bundle.encoding import Encoded
from service.errors import DeadlineExceeded, InferenceFailed, QueueFull
from service.metrics import Metrics
from service.scoring.cost import CostLine
from service.values import Candidates, Scores

log = logging.getLogger(__name__)
Tensor = npt.NDArray[np.float32]


class Stages(Protocol):
    """What the batcher runs; `stages.StagedModel` is the real one."""

    def user(self, users: Encoded) -> Tensor:
        """User tensors [U, P]."""

    def item(self, items: Candidates) -> Tensor:
        """Item tensors [N, P]."""

    def joint(
        self, user_tensor: Tensor, item_tensor: Tensor, user_row: npt.NDArray[np.int64]
    ) -> Scores:
        """Task scores [N, T]."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A request's scores [N, T], and how many seconds it waited and ran."""

    scores: Scores
    queue_s: float
    run_s: float


@dataclass(slots=True, eq=False)
class _Job:
    users: Encoded
    items: Candidates
    deadline: float
    submitted: float
    future: asyncio.Future[Answer]
    taken: int = 0
    finished: int = 0
    started: float | None = None
    user_tensor: Tensor | None = None
    parts: list[Scores] = field(default_factory=list)

    @property
    def waiting_rows(self) -> int:
        return len(self.items) - self.taken


@dataclass(frozen=True, slots=True)
class _Segment:
    """The rows [start, stop) of a job, in one run."""

    job: _Job
    start: int
    stop: int

    @property
    def rows(self) -> int:
        return self.stop - self.start


class Batcher:
    """Packs requests into runs of one model version, one run at a time.

    Args:
        model: name for metrics and messages.
        stages: the sessions to run, called on a thread of `executor`.
        row_budget: most rows in one run.
        queue_rows: most rows waiting; a request is let in when it fits, or when none waits.
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
        self._row_budget = row_budget
        self._queue_rows = queue_rows
        self._metrics = metrics
        self.cost = CostLine()
        self._queue: list[tuple[float, int, _Job]] = []
        self._sequence = itertools.count()
        self._waiting_rows = 0
        self._run_ends: float | None = None  # expected end of the run in flight
        self._run_rows = metrics.run_rows.labels(model)
        self._run_requests = metrics.run_requests.labels(model)
        self._run_seconds = metrics.run_seconds.labels(model)
        self._queued = metrics.queued_rows.labels(model)

    async def score(self, users: Encoded, items: Candidates, deadline: float) -> Answer:
        """Score the N candidates of one request.

        Args:
            users: one row. items: N rows. deadline: time.monotonic() seconds.

        Raises:
            QueueFull: no room in the queue.
            DeadlineExceeded: the deadline has passed, or would before the scores are there.
            InferenceFailed: the model failed on this request's rows.
        """
        now = time.monotonic()
        job = _Job(users, items, deadline, now, asyncio.get_running_loop().create_future())
        self._admit(job, now)
        heapq.heappush(self._queue, (deadline, next(self._sequence), job))
        self._wait_more(len(items))
        self._start_run()
        try:
            return await job.future
        except asyncio.CancelledError:
            self._forget(job, "abandoned")
            raise

    def _admit(self, job: _Job, now: float) -> None:
        rows = len(job.items)
        if self._waiting_rows and self._waiting_rows + rows > self._queue_rows:
            wait_s = self.cost.predict(self._waiting_rows)
            raise QueueFull(
                f"{self._model}: {self._waiting_rows} candidate rows are waiting, "
                f"{self._queue_rows} is the limit",
                retry_after_s=wait_s,
            )
        in_flight_s = max((self._run_ends or now) - now, 0.0)
        ahead = self._waiting_rows
        if now + in_flight_s + self.cost.predict(ahead + rows) > job.deadline:
            # only those with an earlier deadline run before this one
            ahead = sum(j.waiting_rows for due, _, j in self._queue if due <= job.deadline)
            needed_s = in_flight_s + self.cost.predict(ahead + rows)
            if now + needed_s > job.deadline:
                self._metrics.dropped.labels(self._model, "predicted_late").inc()
                raise DeadlineExceeded(
                    f"{self._model}: {rows} candidates behind {ahead} waiting rows need about "
                    f"{needed_s * 1000:.1f} ms; {max(job.deadline - now, 0) * 1000:.1f} ms are left"
                )

    def _wait_more(self, rows: int) -> None:
        self._waiting_rows += rows
        self._queued.set(self._waiting_rows)

    def _forget(self, job: _Job, reason: str) -> None:
        if job.waiting_rows:
            self._metrics.dropped.labels(self._model, reason).inc()
            self._wait_more(-job.waiting_rows)
            job.taken = len(job.items)

    def _start_run(self) -> None:
        if self._run_ends is not None:
            return
        segments = self._form_batch(time.monotonic())
        if not segments:
            return
        started = time.monotonic()
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
        segments: list[_Segment],
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

    def _form_batch(self, now: float) -> list[_Segment]:
        segments: list[_Segment] = []
        room = self._row_budget
        while self._queue and room:
            job = self._queue[0][2]
            if job.future.done():  # an earlier part of it failed
                self._wait_more(-job.waiting_rows)
                heapq.heappop(self._queue)
                continue
            if job.started is None and now + self.cost.predict(len(job.items)) > job.deadline:
                heapq.heappop(self._queue)
                self._forget(job, "late")
                job.future.set_exception(
                    DeadlineExceeded(
                        f"{self._model}: waited {(now - job.submitted) * 1000:.1f} ms in the queue"
                    )
                )
                continue
            rows = min(room, job.waiting_rows)
            segments.append(_Segment(job, job.taken, job.taken + rows))
            job.taken += rows
            room -= rows
            self._wait_more(-rows)
            if not job.waiting_rows:
                heapq.heappop(self._queue)
        return segments

    def _finish_run(
        self, segments: list[_Segment], started: float, outcomes: list[Scores | Exception]
    ) -> None:
        ended = time.monotonic()
        self._run_ends = None
        rows = sum(segment.rows for segment in segments)
        self.cost.observe(rows, ended - started)
        self._run_rows.observe(rows)
        self._run_requests.observe(len(segments))
        self._run_seconds.observe(ended - started)
        for segment, outcome in zip(segments, outcomes, strict=True):
            self._deliver(segment, outcome, ended)
        self._start_run()

    def _deliver(self, segment: _Segment, outcome: Scores | Exception, ended: float) -> None:
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

    def _run(self, segments: list[_Segment]) -> list[Scores | Exception]:
        """Score segments, on a thread: one outcome each, whatever happens."""
        try:
            return list(self._run_together(segments))
        except Exception as error:
            self._metrics.run_failures.labels(self._model).inc()
            if len(segments) == 1:
                log.exception("%s: a run of one request failed", self._model)
                return [error]
            log.warning("%s: a run of %d requests failed: %s", self._model, len(segments), error)
        return [self._run([segment])[0] for segment in segments]

    def _run_together(self, segments: Sequence[_Segment]) -> Sequence[Scores]:
        new = [segment.job for segment in segments if segment.job.user_tensor is None]
        if new:
            tensors = self._stages.user(Encoded.concatenate([job.users for job in new]))
            _check_rows("user tensors", tensors, len(new))
            for row, job in enumerate(new):
                job.user_tensor = tensors[row : row + 1]
        items = self._stages.item(
            Candidates.concatenate([s.job.items.take(slice(s.start, s.stop)) for s in segments])
        )
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


def _check_rows(what: str, found: npt.NDArray[np.float32], expected: int) -> None:
    if len(found) != expected:  # would be broadcast, or give one request the rows of another
        raise ValueError(f"{len(found)} {what} where {expected} are due")
