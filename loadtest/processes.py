"""What a process and its children have used, from /proc."""

from __future__ import annotations

import os
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_UTIME, _CUTIME_END = 11, 15
"""Fields of /proc/PID/stat after the name: user and system time, own and of ended children."""


def family(pid: int) -> list[int]:
    """The process and all that descend from it."""
    found = [pid]
    for parent in found:  # grows while it is read
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            found.extend(int(child) for child in children.read_text().split())
    return found


def cpu_seconds(pid: int) -> float:
    """CPU seconds used so far, in steps of a clock tick (10 ms)."""
    ticks = 0
    for each in family(pid):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        ticks += sum(int(field) for field in fields[_UTIME:_CUTIME_END])
    return ticks / _TICKS_PER_S


def resident_bytes(pid: int) -> int:
    """Resident memory; pages shared by a family count once in each process."""
    pages = sum(int(Path(f"/proc/{each}/statm").read_text().split()[1]) for each in family(pid))
    return pages * os.sysconf("SC_PAGE_SIZE")
