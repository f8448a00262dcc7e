"""Bare: the undivided graph in a loop of `InferenceSession.run`, nothing around it.

This is the handle; the loop itself, `bare_loop.py`, is a process of its own, pinned to a core. It
stays for all rounds and waits, at no cost, in between.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtest.pinned import pinned
from loadtest.server import ServiceFailed, tail
from loadtest.workload import Workload


@dataclass(frozen=True)
class BareRound:
    """One timed loop.

    Attributes:
        candidates: rows of each run.
        runs: how often the graph ran.
        seconds: wall time of the loop.
        cpu_seconds: CPU time of the process in it.
    """

    candidates: int
    runs: int
    seconds: float
    cpu_seconds: float

    @property
    def items_per_s(self) -> float:
        """Candidates scored in a second."""
        return self.runs * self.candidates / self.seconds

    @property
    def cpu_ms(self) -> float:
        """CPU time of one run, milliseconds."""
        return 1000 * self.cpu_seconds / self.runs


class Bare:
    """The bare loop, to be asked for one round after the other."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self._log = log

    def round(self, candidates: int, seconds: float) -> BareRound:
        """Run the graph for `seconds` over rows of `candidates` items each."""
        return BareRound(**self._ask({"candidates": candidates, "seconds": seconds}))

    def scores(self, request: bytes) -> list[list[float]]:
        """The undivided graph's task scores for a `/rank` request: [candidates, tasks]."""
        found: list[list[float]] = self._ask({"request": json.loads(request)})
        return found

    def _ask(self, order: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{json.dumps(order)}\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise ServiceFailed(f"the bare loop ended by itself; its log:\n{tail(self._log)}")
        return json.loads(line)


@contextmanager
def bare_loop(workload: Workload, core: int, scratch: Path) -> Iterator[Bare]:
    """Start the bare loop on a core."""
    log = scratch / "bare.log"
    command = [sys.executable, "-m", "loadtest.bare_loop"]
    command += [str(workload.bundle), str(workload.undivided)]
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            pinned(core, command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        try:
            yield Bare(process, log)
        finally:
            process.kill()
