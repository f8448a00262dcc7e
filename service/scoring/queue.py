"""The rows that wait for a run: who is let in, who goes next, who is dropped before costing one.

Earliest deadline first. A request larger than a run goes over several, and has an eighth of each:
runs stay short while it lasts, and nobody small waits long for somebody large.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from service.errors import DeadlineExceeded, QueueFull
from service.metrics import Metrics
from service.scoring.cost import CostLine
from service.values import Candidates, Scores, UserSide

_LARGE_PART = 8
"""A request larger than a run has one in so many of its rows."""
_DOUBT_S = 1.0
"""How long nothing has run before what runs cost is believed less, seconds."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A request's scores [N, T], and how many seconds it waited and ran."""

    scores: Scores
    queue_s: float
    run_s: float


@dataclass(slots=True, eq=False)
class Job:
    """One request's rows, and how far they have come.

    Attributes:
        users: one row. items: N rows.
        deadline, submitted, started: time.monotonic() seconds.
        taken: rows that a run has, or has had. finished: rows that have scores.
        user_tensor: float32 [1, P], from the first run on.
        parts: the scores of each finished run.
    """

    users: UserSide
    items: Candidates
    deadline: float
    submitted: float
    future: asyncio.Future[Answer]
    taken: int = 0
    finished: int = 0
    started: float | None = None
    user_tensor: npt.NDArray[np.float32] | None = None
    parts: list[Scores] = field(default_factory=list)

    @property
    def waiting_rows(self) -> int:
        """Rows that no run has taken yet."""
        return len(self.items) - self.taken


@dataclass(frozen=True, slots=True)
class Segment:
    """The rows [start, stop) of a job, in one run."""

    job: Job
    start: int
    stop: int

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.stop - self.start


class RowQueue:
    """Jobs waiting for runs of one model.

    Args:
        row_budget: most rows in one run.
        most_rows: most rows waiting; a job is let in when it fits, or when none waits.
        cost: what runs have cost so far.
    """

    def __init__(
        self, model: str, row_budget: int, most_rows: int, cost: CostLine, metrics: Metrics
    ) -> None:
        self._model = model
        self._row_budget = row_budget
        self._most_rows = most_rows
        self._cost = cost
        self._heap: list[tuple[float, int, Job]] = []
        self._sequence = itertools.count()
        self._rows = 0
        self._taught_at = 0.0
        self._dropped = metrics.dropped
        self._gauge = metrics.queued_rows.labels(model)

    def wait_s(self) -> float:
        """Seconds that all waiting rows are expected to take."""
        return self._cost.predict(self._rows) if self._rows else 0.0

    def push(self, job: Job, now: float, in_flight_s: float) -> None:
        """Let a job in.

        Args:
            in_flight_s: seconds until the run in flight should end.

        Raises:
            QueueFull: no room.
            DeadlineExceeded: its deadline would pass before its scores are there.
        """
        rows = len(job.items)
        if self._rows and self._rows + rows > self._most_rows:
            raise QueueFull(
                f"{self._model}: {self._rows} candidate rows are waiting, {self._most_rows} is "
                "the limit",
                retry_after_s=self._cost.predict(self._rows),
            )
        if now + in_flight_s + self._cost.predict(self._rows + rows) > job.deadline:
            # only those with an earlier deadline run before this one
            ahead = sum(j.waiting_rows for due, _, j in self._heap if due <= job.deadline)
            needed_s = in_flight_s + self._cost.predict(ahead + rows)
            if now + needed_s > job.deadline:
                if not in_flight_s and now - self._taught_at > _DOUBT_S:
                    self._cost.doubt()  # nothing runs that could teach it better
                    self._taught_at = now
                self._dropped.labels(self._model, "predicted_late").inc()
                raise DeadlineExceeded(
                    f"{self._model}: {rows} candidates behind {ahead} waiting rows need about "
                    f"{needed_s * 1000:.1f} ms; {max(job.deadline - now, 0) * 1000:.1f} ms are left"
                )
        heapq.heappush(self._heap, (job.deadline, next(self._sequence), job))
        self._count(rows)

    def drop(self, job: Job, reason: str) -> None:
        """Forget the rows of a job that still wait."""
        if job.waiting_rows:
            self._dropped.labels(self._model, reason).inc()
            self._count(-job.waiting_rows)
            job.taken = len(job.items)

    def take(self, now: float) -> list[Segment]:
        """The rows of the next run: none when none wait."""
        segments: list[Segment] = []
        large: list[tuple[float, int, Job]] = []
        room, large_room = self._row_budget, max(self._row_budget // _LARGE_PART, 1)
        while self._heap and room:
            entry = heapq.heappop(self._heap)
            job = entry[2]
            if not self._still_due(job, now):
                continue
            if len(job.items) > self._row_budget:
                if not large:
                    large_room = min(room, large_room)
                    room -= large_room
                large.append(entry)
                continue
            if large and job.waiting_rows > room:  # it would gain nothing by going in pieces
                heapq.heappush(self._heap, entry)
                break
            room -= self._cut(job, room, segments)
            if job.waiting_rows:
                heapq.heappush(self._heap, entry)
        for entry in large:
            large_room -= self._cut(entry[2], large_room, segments)
            if entry[2].waiting_rows:
                heapq.heappush(self._heap, entry)
        if segments:
            self._taught_at = now
        return segments

    def _still_due(self, job: Job, now: float) -> bool:
        if job.future.done():  # its client has left, or an earlier part of it failed
            self._count(-job.waiting_rows)
            return False
        if job.started is None and now + self._cost.predict(len(job.items)) > job.deadline:
            self.drop(job, "late")
            waited_ms = (now - job.submitted) * 1000
            job.future.set_exception(
                DeadlineExceeded(f"{self._model}: waited {waited_ms:.1f} ms in the queue")
            )
            return False
        return True

    def _cut(self, job: Job, room: int, segments: list[Segment]) -> int:
        rows = min(room, job.waiting_rows)
        if rows:
            segments.append(Segment(job, job.taken, job.taken + rows))
            job.taken += rows
            self._count(-rows)
        return rows

    def _count(self, rows: int) -> None:
        self._rows += rows
        self._gauge.set(self._rows)
