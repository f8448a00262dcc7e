"""Digests of files, each file read once a machine: what one worker has hashed, the others believe.

A digest is kept under the identity of its file: device, inode, size, times of its last change. The
time of an inode's change cannot be set, so whatever is done to a file, its digest is taken anew.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from bundle.manifest import FileDigest
from bundle.store import digest
from service.worker import Worker

_TICK_NS = 20_000_000
"""Two changes within a tick of the system's clock may leave the same time."""


class Digests:
    """The digest of a file, taken or remembered. For any thread.

    Args:
        worker: its run directory is where the workers of a service tell each other.
    """

    def __init__(self, worker: Worker) -> None:
        self._directory = worker.run_dir
        self._known: dict[str, FileDigest] = {}

    def __call__(self, path: Path) -> FileDigest:
        """Size and sha256 of a file.

        Raises:
            OSError: it cannot be read.
        """
        looked_ns = time.time_ns()
        before = path.stat()
        name = _identity(before)
        found = self._known.get(name) or self._told(name)
        if found is None:
            found = digest(path)
            if looked_ns - before.st_ctime_ns < _TICK_NS or _identity(path.stat()) != name:
                return found  # it may be another's by now
            self._tell(name, found)
        self._known[name] = found
        return found

    def _told(self, name: str) -> FileDigest | None:
        if self._directory is None:
            return None
        try:
            return FileDigest.model_validate_json((self._directory / name).read_bytes())
        except FileNotFoundError:
            return None

    def _tell(self, name: str, found: FileDigest) -> None:
        if self._directory is not None:
            temporary = self._directory / f".{name}-{threading.get_native_id()}"
            temporary.write_text(found.model_dump_json())
            temporary.rename(self._directory / name)


def _identity(stat: os.stat_result) -> str:
    parts = stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
    return "digest-" + "-".join(map(str, parts))
