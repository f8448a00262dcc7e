"""A closed loop: each connection sends its next request when its last one is answered.

It finds the throughput that a service can sustain. Latency at a given rate cannot be read from it.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle

from loadtest.http_client import LOST, Connection, connect, run
from loadtest.prepared import Check, Prepared, outcome
from loadtest.server import pause

_LOOK_S = 0.05


@dataclass
class ClosedLoop:
    """What came of it.

    Attributes:
        seconds: from the first request to the last answer.
        outcomes: outcome -> answers, as `prepared.outcome` names them.
        rows: candidates of the right answers.
    """

    seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    rows: int = 0

    @property
    def answers(self) -> int:
        """Answers of any kind."""
        return self.outcomes.total()


def closed_loop(
    url: str,
    requests: Sequence[Prepared],
    connections: int,
    seconds: float | None,
    check: Check = outcome,
) -> ClosedLoop:
    """Load the service.

    Args:
        requests: sent in this order, and over again when they do not last.
        seconds: when to stop sending; None: when every request was sent once.
        check: how an answer is to be counted.
    """
    return run(_load(url, requests, connections, seconds, check))


async def _load(
    url: str,
    requests: Sequence[Prepared],
    connections: int,
    seconds: float | None,
    check: Check,
) -> ClosedLoop:
    found = ClosedLoop()
    source = iter(requests) if seconds is None else cycle(requests)
    opened = await connect(url, connections)
    started = time.perf_counter()
    ends = float("inf") if seconds is None else started + seconds
    busy = 0

    def ask(connection: Connection) -> None:
        nonlocal busy
        request = next(source, None) if time.perf_counter() < ends else None
        if request is None:
            busy -= 1
            return

        def answered(status: int, body: bytes) -> None:
            found.seconds = time.perf_counter() - started
            if status == LOST:
                nonlocal busy
                busy -= 1
            else:
                ask(connection)  # first: the service is not to wait for our check
            came = "lost" if status == LOST else check(status, body, request)
            found.outcomes[came] += 1
            if came in ("ok", "degraded"):
                found.rows += len(request.candidates)

        connection.ask(request.message, answered)

    for connection in opened:
        busy += 1
        ask(connection)
    while busy:
        pause(0)
        await asyncio.sleep(_LOOK_S)
    for connection in opened:
        connection.close()
    return found
