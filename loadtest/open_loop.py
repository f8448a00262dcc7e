"""An open loop: requests leave when they are due, whether or not earlier ones were answered.

Latency counts from the time a request was due. A service that stalls is charged for all that should
have been sent meanwhile, where a closed loop would politely wait with it.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from loadtest.http_client import LOST, Connection, connect, run
from loadtest.measurements import percentiles
from loadtest.prepared import Check, Prepared, outcome
from loadtest.server import pause

_FIRST_CONNECTIONS, _MOST_CONNECTIONS = 32, 900
"""More are opened as needed; select(2) ends at 1,024 descriptors."""

_LOOK_S = 0.25
_PATIENCE_S = 20.0
"""The longest wait for the last answers; what is missing then counts as lost."""


class Arrival(NamedTuple):
    """A request and when it is due, seconds from the start."""

    due_s: float
    request: Prepared


@dataclass(frozen=True)
class Answer:
    """What became of an arrival.

    Attributes:
        due_s: seconds from the start.
        latency_ms: from when it was due to the whole answer.
        candidates: in the request.
        outcome: as `prepared.outcome` names it, or "lost".
        sent_late_ms: of the latency, what passed before the request was sent: the load generator's
            own delay, or no connection was free.
    """

    due_s: float
    latency_ms: float
    candidates: int
    outcome: str
    sent_late_ms: float


def poisson(requests: Sequence[Prepared], per_s: float, seconds: float, seed: int) -> list[Arrival]:
    """Independent arrivals at a mean rate; `requests` over again when they do not last."""
    rng = np.random.default_rng(seed)
    gaps = rng.exponential(1 / per_s, size=int(per_s * seconds * 1.5) + 20)
    due = gaps.cumsum()
    return [
        Arrival(due_s, requests[at % len(requests)])
        for at, due_s in enumerate(due[due < seconds].tolist())
    ]


def evenly(requests: Sequence[Prepared], per_s: float, seconds: float) -> list[Arrival]:
    """Arrivals at equal distances."""
    return [Arrival(at / per_s, requests[at % len(requests)]) for at in range(int(per_s * seconds))]


def open_loop(
    url: str,
    arrivals: Sequence[Arrival],
    watch: Callable[[float], None] | None = None,
    check: Check = outcome,
) -> list[Answer]:
    """Send every arrival when it is due.

    Connections take turns, so that workers which share a port share the load.

    Args:
        arrivals: in the order of time.
        watch: called about four times a second with the seconds since the start.
        check: how an answer is to be counted.

    Returns:
        One answer an arrival, in the order they came.
    """
    gc.disable()  # a look through all answers would make late what is due meanwhile
    try:
        return run(_OpenLoop(url, arrivals, check).run(watch))
    finally:
        gc.enable()


def latency_ms(answers: Sequence[Answer]) -> dict[str, float | None]:
    """Percentiles of the right answers, by name."""
    return percentiles([each.latency_ms for each in answers if each.outcome in ("ok", "degraded")])


def outcomes(answers: Sequence[Answer]) -> dict[str, int]:
    """Outcome -> answers."""
    return dict(Counter(each.outcome for each in answers))


class _OpenLoop:
    def __init__(self, url: str, arrivals: Sequence[Arrival], check: Check) -> None:
        self._url = url
        self._check = check
        self._arrivals = arrivals
        self._next = 0
        self._idle: deque[Connection] = deque()  # the one that has rested longest is the next
        self._waiting: deque[Arrival] = deque()
        self._connections: list[Connection] = []
        self._opening: set[asyncio.Task[None]] = set()
        self._answers: list[Answer] = []
        self._started = 0.0

    async def run(self, watch: Callable[[float], None] | None) -> list[Answer]:
        self._connections = await connect(self._url, _FIRST_CONNECTIONS)
        self._idle += self._connections
        loop = asyncio.get_running_loop()
        self._started = loop.time()
        self._send_due()
        give_up = self._started + self._arrivals[-1].due_s + _PATIENCE_S
        while len(self._answers) < len(self._arrivals) and loop.time() < give_up:
            pause(0)
            if watch is not None:
                watch(loop.time() - self._started)
            await asyncio.sleep(_LOOK_S)
        answers = list(self._answers)  # closing adds those that never came
        for connection in self._connections:
            connection.close()
        missing = len(self._arrivals) - len(answers)
        return answers + [Answer(0.0, 0.0, 0, "lost", 0.0)] * missing

    def _send_due(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time() - self._started
        while self._next < len(self._arrivals) and self._arrivals[self._next].due_s <= now:
            self._waiting.append(self._arrivals[self._next])
            self._next += 1
        self._send_waiting()
        if self._next < len(self._arrivals):
            loop.call_at(self._started + self._arrivals[self._next].due_s, self._send_due)

    def _send_waiting(self) -> None:
        while self._waiting and self._idle:
            connection = self._idle.popleft()
            if connection.alive:
                self._send(connection, self._waiting.popleft())
            else:
                self._connections.remove(connection)
        room = _MOST_CONNECTIONS - len(self._connections) - len(self._opening)
        for _ in range(min(room, len(self._waiting) - len(self._opening))):
            task = asyncio.create_task(self._open())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self) -> None:
        try:
            opened = await connect(self._url, 1)
        except OSError:  # the next arrival tries again
            return
        self._connections += opened
        self._idle += opened
        self._send_waiting()

    def _send(self, connection: Connection, arrival: Arrival) -> None:
        due = self._started + arrival.due_s
        sent_late_ms = 1000 * (time.monotonic() - due)

        def answered(status: int, body: bytes) -> None:
            late_ms = 1000 * (time.monotonic() - due)
            if status == LOST:
                self._connections.remove(connection)
            else:
                self._idle.append(connection)
                if self._waiting:
                    self._send_waiting()
            rows = len(arrival.request.candidates)
            came = "lost" if status == LOST else self._check(status, body, arrival.request)
            self._answers.append(Answer(arrival.due_s, late_ms, rows, came, sent_late_ms))

        connection.ask(arrival.request.message, answered)
