"""How many cores this process may use, those that it was given; and which threads come first."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

NICENESS = 10
"""Of threads that must not take the processor from requests. Not more: while it holds the
interpreter's lock, such a thread has to come to an end."""

_NICEST = 19
_SWITCH_S = 0.0005
_ROOT = Path("/")


def lower_priority() -> None:
    """Give way to all other threads from now on; of the thread that calls it alone."""
    thread = threading.get_native_id()
    nicer = os.getpriority(os.PRIO_PROCESS, thread) + NICENESS  # the process may be nice already
    os.setpriority(os.PRIO_PROCESS, thread, min(nicer, _NICEST))


def share_interpreter() -> None:
    """Have the threads of this process hand over the interpreter's lock after half a millisecond
    if another waits for it; requests would wait 5 ms, again and again, while a version is loaded.
    """
    sys.setswitchinterval(_SWITCH_S)


def usable_cores(root: Path = _ROOT) -> int:
    """Cores of the affinity mask, or of the cgroup's CPU quota where that is less; at least 1.

    A quota counts in whole cores, rounded down: a thread more than the quota feeds is throttled.

    Args:
        root: where /proc and /sys are.
    """
    return max(1, min([len(os.sched_getaffinity(0)), *map(int, _quotas(root))]))


def _quotas(root: Path) -> Iterator[float]:
    """CPU quotas, in cores, of the process's cgroups and of all above them; v2 and v1."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except FileNotFoundError:  # no cgroups here
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            for group in _upwards(root / "sys/fs/cgroup", path):
                yield from _quota(_numbers(group / "cpu.max"))
        elif "cpu" in controllers.split(","):
            for group in _upwards(root / "sys/fs/cgroup/cpu", path):
                quota, period = (group / f"cpu.cfs_{name}_us" for name in ("quota", "period"))
                yield from _quota([*_numbers(quota), *_numbers(period)])


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """The group's directory and those above; inside a container the path may be the host's."""
    inside = PurePosixPath(path).relative_to("/")
    return (mount / group for group in (inside, *inside.parents))


def _numbers(file: Path) -> list[float]:
    try:
        return [float(word) for word in file.read_text().replace("max", "-1").split()]
    except FileNotFoundError:
        return []


def _quota(numbers: list[float]) -> Iterator[float]:
    if len(numbers) == 2 and numbers[0] > 0:
        yield numbers[0] / numbers[1]
