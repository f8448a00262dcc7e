"""Requests of the reference workload, made before the clock runs; the check of their answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from loadtest.workload import MODEL

USERS, ITEMS = 1_000, 10_000
TASKS = ("click", "like", "share")
_CONTEXTS, _CONTEXT_VALUES = 4, 100
_HEAD = (
    "POST /rank HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n"
)


@dataclass(frozen=True)
class Prepared:
    """One request: the whole HTTP message, and the candidates it asks for."""

    message: bytes
    candidates: npt.NDArray[np.int64]


class Feed:
    """Requests of one user and distinct candidates each, drawn uniformly from a seed."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def draw(self, count: int, candidates: int) -> list[Prepared]:
        """`count` requests of `candidates` each."""
        users = self._rng.integers(USERS, size=count).tolist()
        return [
            self._prepare(user, self._rng.choice(ITEMS, candidates, replace=False, shuffle=False))
            for user in users
        ]

    def everything(self) -> list[Prepared]:
        """Requests that together ask for every user once and for every item once."""
        items = self._rng.permutation(ITEMS).reshape(USERS, -1)
        return [self._prepare(user, items[user]) for user in range(USERS)]

    def _prepare(self, user: int, candidates: npt.NDArray[np.int64]) -> Prepared:
        values = self._rng.integers(_CONTEXT_VALUES, size=_CONTEXTS).tolist()
        body = orjson.dumps(
            {
                "model": MODEL,
                "user": {"id": user},
                "context": {f"context_{index}": value for index, value in enumerate(values)},
                "candidates": {"ids": candidates},
                "format": "columns",
            },
            option=orjson.OPT_SERIALIZE_NUMPY,
        )
        return Prepared(_HEAD.format(len(body)).encode() + body, candidates)


def outcome(status: int, body: bytes, request: Prepared) -> str:
    """How an answer is to be counted.

    Returns:
        "ok"; "degraded", a right answer from features that were missing; "429" or another status;
        or "wrong", a 200 that does not hold every candidate once with all of its scores.
    """
    if status != 200:
        return str(status)
    answer: dict[str, Any] = orjson.loads(body)
    rows = len(request.candidates)
    columns = [answer["scores"], *(answer["tasks"][task] for task in TASKS)]
    if any(len(column) != rows for column in columns):
        return "wrong"
    if not np.array_equal(np.sort(answer["ids"]), np.sort(request.candidates)):
        return "wrong"
    return "ok" if answer["degraded"] is None else "degraded"


Check = Callable[[int, bytes, Prepared], str]
"""Status, body and request -> how the answer is to be counted; "ok" is right."""
