"""Pace: beside requests a version is loaded with rests, so that it never takes all that they leave.

A core that is not idle delays whoever wakes up on it, however low the priority of its work is; and
what loading reads and writes drives the requests' data out of the processor's cache. Work that took
all that half a load left doubled the latency of the slowest requests (docs/decisions/0045).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

_SHARE = 1 / 3
"""Of a core."""
_MOST_REST_S = 0.4
"""All workers are to serve a version soon: one that takes long to load rests no longer."""


class Pace:
    """The pace at which one version is loaded.

    Args:
        beside_requests: whether there are any; else it never rests.
    """

    def __init__(self, beside_requests: bool) -> None:
        self._left_s = _MOST_REST_S if beside_requests else 0.0
        self._since = 0.0

    @contextmanager
    def working(self) -> Iterator[None]:
        """Work of the calling thread; it rests at the end, and at every `rest`."""
        self._since = time.thread_time()
        yield
        self.rest()

    def rest(self) -> None:
        """Sleep until the thread has had no more than its share of a core since the last rest."""
        worked_s = time.thread_time() - self._since
        rest_s = min(worked_s * (1 / _SHARE - 1), self._left_s)
        self._left_s -= rest_s
        time.sleep(rest_s)
        self._since = time.thread_time()
