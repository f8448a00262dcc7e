"""`python -m loadtest.pinned CORE COMMAND...`: become COMMAND, on one core, tied to the parent.

A benchmark that is killed leaves nothing behind: whatever it started gets SIGTERM from the kernel.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def cores() -> tuple[int, int]:
    """The core of the client and of Redis, and the core of what is measured."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[-1]


def pinned(core: int, command: Sequence[str], **variables: object) -> tuple[str, ...]:
    """`command` on one core, with environment variables of its own; its process id stays."""
    assignments = [f"{name}={value}" for name, value in variables.items()]
    return ("env", *assignments, sys.executable, "-m", __name__, str(core), *command)


def main(arguments: Sequence[str]) -> None:
    """Pin this process, tie it to its parent, and hand it over to the command."""
    core, *command = arguments
    os.sched_setaffinity(0, {int(core)})
    os.setpgrp()  # Ctrl-C reaches the benchmark alone, which stops what it started in order
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before we were tied to it
        sys.exit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
