"""Load on `/rank` that never stops, and the check of every answer: are these the rows asked for?"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf

import numpy as np
import orjson

from loadtest.chaos.echo_model import DEFAULT, ITEMS, MODEL, USERS
from loadtest.http_client import LOST, connect

_CONNECTIONS = 4
_CANDIDATES = 20
_PAUSE_S = 0.005
_FRESH_WITHIN_S = 1.0
_HEAD = (
    "POST /rank HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n"
)


@dataclass
class Record:
    """What became of the requests of one case.

    Attributes:
        degraded: answers with a reason. reasons: how often each was given.
        failed: answers other than 200, or none. late: after their deadline.
        wrong: another id's row, a default without a word, or an old value after a second.
        last_degraded: time.monotonic() of the last degraded answer.
        complaints: what was failed, late or wrong, and how often.
    """

    requests: int = 0
    degraded: int = 0
    failed: int = 0
    late: int = 0
    wrong: int = 0
    last_degraded: float = 0.0
    last_answer: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)
    complaints: Counter[str] = field(default_factory=Counter)


class Driver:
    """Asks on several connections, a new request a few milliseconds after each answer.

    Args:
        timeout_s: deadline of a request, seconds, as the service is told.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._rng = np.random.default_rng(0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._drive()), daemon=True)
        self._values: dict[float, float] = {0.0: inf}  # value -> until when it may be seen
        self.record = Record()

    def __enter__(self) -> Driver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def new_record(self) -> Record:
        """Count from zero again; requests under way count to the new record."""
        self.record = Record()
        return self.record

    @contextmanager
    def writing(self, value: float) -> Iterator[None]:
        """All items get this `value` in the block; a second later no other may be seen."""
        old = [each for each, until in self._values.items() if until == inf]
        self._values[value] = inf
        yield
        self._values |= dict.fromkeys(old, time.monotonic() + _FRESH_WITHIN_S)

    async def _drive(self) -> None:
        await asyncio.gather(*(self._one_connection() for _ in range(_CONNECTIONS)))

    async def _one_connection(self) -> None:
        loop = asyncio.get_running_loop()
        (connection,) = await connect(self._url, 1)
        while not self._stop.is_set():
            user = int(self._rng.integers(1, USERS + 1))
            items = self._rng.choice(ITEMS, _CANDIDATES, replace=False) + 1
            ids = items.tolist()
            body = orjson.dumps(
                {
                    "model": MODEL,
                    "user": {"id": user},
                    "candidates": {"ids": ids},
                    "format": "columns",
                    "timeout_ms": self._timeout_s * 1000,
                }
            )
            answered: asyncio.Future[tuple[int, bytes]] = loop.create_future()
            sent = time.monotonic()
            connection.ask(
                _HEAD.format(len(body)).encode() + body,
                lambda status, body, answered=answered: answered.set_result((status, body)),  # type: ignore[misc]
            )
            status, content = await answered
            self._check(user, ids, status, content, sent)
            if status == LOST:
                (connection,) = await connect(self._url, 1)
            await asyncio.sleep(_PAUSE_S)
        connection.close()

    def _check(self, user: int, ids: list[int], status: int, body: bytes, sent: float) -> None:
        record, now = self.record, time.monotonic()
        record.requests += 1
        record.last_answer = now
        if now - sent > self._timeout_s:
            record.late += 1
            record.complaints["after its deadline"] += 1
        if status != 200:
            record.failed += 1
            record.complaints[f"{status} {body[:200].decode(errors='replace')}"] += 1
            return
        answer = orjson.loads(body)
        degraded = answer["degraded"]
        if degraded is not None:
            record.degraded += 1
            record.last_degraded = now
            record.reasons.update(degraded["reasons"])
        right = {value for value, until in self._values.items() if sent < until}
        if complaint := complaint_of(answer, user, ids, right):
            record.wrong += 1
            record.complaints[complaint] += 1


def complaint_of(answer: dict[str, object], user: int, ids: list[int], right: set[float]) -> str:
    """What is wrong with an answer's rows, or ""."""
    tasks: dict[str, list[float]] = answer["tasks"]  # type: ignore[assignment]
    degraded: dict[str, dict[str, dict[str, int]]] = answer["degraded"] or {"features": {}}  # type: ignore[assignment]
    counts = degraded["features"]
    if sorted(answer["ids"]) != sorted(ids):  # type: ignore[call-overload]
        return "other candidates than were asked for"
    defaults = 0
    for item, user_seen, item_seen, value in zip(
        answer["ids"],  # type: ignore[call-overload]
        tasks["user_number"],
        tasks["item_number"],
        tasks["value"],
        strict=True,
    ):
        if user_seen not in (user, DEFAULT) or item_seen not in (item, DEFAULT):
            return "another id's row"
        if user_seen == DEFAULT and not counts.get("user", {}).get("defaulted"):
            return "a user's default, and no word of it"
        defaults += item_seen == DEFAULT
        stale = counts.get("item", {}).get("stale")
        if item_seen != DEFAULT and value not in right and not stale:
            return "an old value, a second after the new one was written"
    if defaults != counts.get("item", {}).get("defaulted", 0):
        return "items' defaults, and another count of them"
    return ""
