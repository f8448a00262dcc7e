"""Where the workers of one service meet: a directory in memory, gone when the service has ended.

A service that is killed leaves its directory; the next one to start sweeps it away. Which ones have
an owner left is told by a lock, which ends with its process.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from service.files import try_lock

_PREFIX = "multirank-run-"
_OWNER = "owner"


@contextmanager
def run_directory(home: Path | None = None) -> Iterator[Path]:
    """A new directory, while the block lasts.

    Args:
        home: where it is to lie; left out: in memory, where the system has such a directory, since
            metrics are written at every request.
    """
    home = home or _memory()
    _sweep(home)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=home) as name:
        directory = Path(name)
        unlocked = directory / f"{_OWNER}.new"
        with unlocked.open("wb") as lock:
            try_lock(lock.fileno())
            unlocked.rename(directory / _OWNER)  # whoever finds it finds it locked
            yield directory


def _memory() -> Path:
    return Path("/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir())


def _sweep(home: Path) -> None:
    for directory in home.glob(f"{_PREFIX}*"):
        with suppress(OSError), (directory / _OWNER).open("rb") as lock:  # another user's, say
            if try_lock(lock.fileno()):
                shutil.rmtree(directory, ignore_errors=True)
