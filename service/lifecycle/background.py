"""Work beside requests: threads of low priority that give the interpreter's lock up quickly."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

NICENESS = 5
"""Of threads that must not take the processor from requests. Not more: while it holds the
interpreter's lock, such a thread has to get on."""

_SWITCH_S = 0.0005


def lower_priority() -> None:
    """Give way to other threads from now on; of the thread that calls it alone (Linux)."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


@contextmanager
def giving_way() -> Iterator[None]:
    """Whoever wants the interpreter's lock from Python code that runs gets it after half a ms.

    The usual 5 ms are a whole request's time, and a request needs the lock several times.
    """
    usual = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)
