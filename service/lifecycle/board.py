"""What each worker process serves, for whichever of them is asked: a small file each.

They share a directory. A file is replaced as a whole at every look at the models directory. One
that was not renewed for a while is shown as stale: its worker hangs, or is gone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from service.worker import Worker

_STALE_LOOKS = 3
_STALE_S = 1.0


@dataclass(frozen=True, slots=True)
class Report:
    """What one worker serves.

    Attributes:
        models: model name -> what `report.part` makes of it.
        stale: it is older than it should be.
    """

    worker: int
    pid: int
    models: Mapping[str, Any]
    stale: bool


class Board:
    """The reports of all workers.

    Args:
        worker: which one this is, and where they meet.
        renewed_s: how often every report is renewed, seconds.

    Attributes:
        workers: how many reports there should be.
    """

    def __init__(self, worker: Worker, renewed_s: float) -> None:
        self._directory = worker.run_dir
        self._index = worker.index
        self.workers = worker.count
        self._stale_s = _STALE_LOOKS * renewed_s + _STALE_S
        self._own: dict[str, Any] = {}

    def put(self, models: Mapping[str, Any]) -> None:
        """Renew this worker's report."""
        at = time.monotonic()  # one clock for all processes of a machine
        self._own = {"worker": self._index, "pid": os.getpid(), "at": at, "models": models}
        if self._directory is not None:
            temporary = self._directory / f".serves-{self._index}"
            temporary.write_bytes(orjson.dumps(self._own))
            temporary.rename(self._directory / f"serves-{self._index}.json")

    def reports(self) -> list[Report]:
        """Of every worker that has one, by index."""
        if self._directory is None:
            return [self._report(self._own)] if self._own else []
        found = [orjson.loads(path.read_bytes()) for path in self._directory.glob("serves-*.json")]
        return sorted(map(self._report, found), key=lambda each: each.worker)

    def _report(self, content: dict[str, Any]) -> Report:
        stale = time.monotonic() - content["at"] > self._stale_s
        return Report(content["worker"], content["pid"], content["models"], stale)
