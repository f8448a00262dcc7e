"""The circuit breaker: a store that does not answer is left alone, and asked again now and then.

    closed     every read goes ahead
    open       none does, until the back-off has passed
    half-open  one read goes ahead, as a probe: its success closes, its failure opens for longer

A read that is late counts as failed once, and as answered when it does answer: the store lives.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import Literal

log = logging.getLogger(__name__)

State = Literal["closed", "half_open", "open"]
STATES: tuple[State, ...] = ("closed", "half_open", "open")

_FAILURES_TO_OPEN = 3
_FIRST_BACK_OFF_S = 0.1
_LONGEST_BACK_OFF_S = 0.8
_MOST_DOUBLINGS = 10


class CircuitBreaker:
    """Decides whether a read may go ahead.

    Args:
        name: of the store, for the log.
        changed: called with the new state whenever there is one.
        now: seconds of a clock that never goes back. jitter: 0 to 1, drawn for each back-off.
    """

    def __init__(
        self,
        name: str,
        changed: Callable[[State], None],
        now: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.state: State = "closed"
        self._name = name
        self._changed = changed
        self._now = now
        self._jitter = jitter
        self._failures = 0
        self._openings = 0
        self._next_probe = 0.0

    def admits(self) -> bool:
        """Whether a read may go ahead now; one that may is to be reported on."""
        if self.state == "closed":
            return True
        if self._now() < self._next_probe:
            return False
        self._back_off()  # should the probe never be reported on, there will be another
        self._become("half_open")
        return True

    def succeeded(self) -> None:
        """A read was answered."""
        self._failures = self._openings = 0
        if self.state != "closed":
            log.info("%s answers again", self._name)
            self._become("closed")

    def failed(self) -> None:
        """A read was refused, broke off, or is late."""
        self._failures += 1
        if self.state == "half_open":
            self._become("open")
        elif self.state == "closed" and self._failures >= _FAILURES_TO_OPEN:
            log.warning("%s fails; it is asked again now and then", self._name)
            self._back_off()
            self._become("open")

    def _back_off(self) -> None:
        longest = min(_FIRST_BACK_OFF_S * 2.0**self._openings, _LONGEST_BACK_OFF_S)
        self._openings = min(self._openings + 1, _MOST_DOUBLINGS)
        # half of it drawn: processes that lost a store together must not come back together
        self._next_probe = self._now() + longest * (1.0 + self._jitter()) / 2.0

    def _become(self, state: State) -> None:
        if state != self.state:
            self.state = state
            self._changed(state)
