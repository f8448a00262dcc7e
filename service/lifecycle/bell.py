"""A bell between workers: one has heard of a change, and all look at the files at once.

Each worker listens at a named pipe in the run directory. A ring says no more than "look", and it
may be lost: whoever does not hear it looks a moment later anyway.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from service.worker import Worker

_PIPE_BYTES = 1 << 16
_NOBODY_LISTENS = (errno.ENOENT, errno.ENXIO)


class Bell:
    """Rings at the other workers of a service, and hears them.

    Args:
        worker: which one this is, and where they meet.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._pipe: int | None = None

    def listen(self, heard: Callable[[], None]) -> None:
        """Call `heard`, on the running loop, when another has rung."""
        if self._worker.run_dir is None:
            return
        path = _pipe_of(self._worker.run_dir, self._worker.index)
        with suppress(FileExistsError):  # that of the worker before this one
            os.mkfifo(path, 0o600)
        # for writing too: a pipe that nobody holds open for writing is always ready to be read
        self._pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        asyncio.get_running_loop().add_reader(self._pipe, self._hear, heard)

    def _hear(self, heard: Callable[[], None]) -> None:
        assert self._pipe is not None
        os.read(self._pipe, _PIPE_BYTES)
        heard()

    def ring(self) -> None:
        """Let the others look."""
        worker = self._worker
        if worker.run_dir is not None:
            for index in range(worker.count):
                if index != worker.index:
                    _ring(_pipe_of(worker.run_dir, index))

    def close(self) -> None:
        """Listen no more."""
        if self._pipe is not None:
            asyncio.get_running_loop().remove_reader(self._pipe)
            os.close(self._pipe)
            self._pipe = None


def _pipe_of(run_dir: Path, index: int) -> Path:
    return run_dir / f"bell-{index}"


def _ring(path: Path) -> None:
    try:
        pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in _NOBODY_LISTENS:
            raise
        return
    try:
        with suppress(BlockingIOError):  # it is full of rings that were not heard yet
            os.write(pipe, b"!")
    finally:
        os.close(pipe)
