"""Turns: the workers of a service load a version one after the other.

Loading slows down the requests of its own worker and takes a core from the others, so while one
loads, the others answer at full speed. A worker that ends gives its turn up, however it ends.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.files import try_lock
from service.worker import Worker

_LOOK_S = 0.01
_LONGEST_WAIT_S = 1.0
"""Versions that take longer are loaded side by side: all workers must come to serve them soon."""


class Turn:
    """The turn of one of several workers.

    Args:
        worker: its run directory is where they meet.
    """

    def __init__(self, worker: Worker) -> None:
        self._file = worker.run_dir and worker.run_dir / "turn"

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """Wait for this worker's turn, a second at most, and have it while the block lasts."""
        if self._file is None:
            yield
            return
        descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            gives_up = time.monotonic() + _LONGEST_WAIT_S
            # a lock of a file cannot be awaited, and a thread that waits could not be told to end
            while not try_lock(descriptor) and time.monotonic() < gives_up:  # noqa: ASYNC110
                await asyncio.sleep(_LOOK_S)
            yield
        finally:
            os.close(descriptor)  # unlocks, as the end of the process would
