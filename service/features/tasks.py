"""How the tasks of this room end."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

_CANCEL_AGAIN_S = 0.1


async def end(tasks: Collection[asyncio.Future[None]]) -> None:
    """Cancel tasks until they have ended: redis-py may lose a cancellation.

    Who is cancelled meanwhile has them ended all the same: what they use may then be closed.
    """
    cancelled: asyncio.CancelledError | None = None
    while left := {task for task in tasks if not task.done()}:
        for task in left:
            task.cancel()
        try:
            await asyncio.wait(left, timeout=_CANCEL_AGAIN_S)
        except asyncio.CancelledError as error:
            cancelled = error
    await asyncio.gather(*tasks, return_exceptions=True)
    if cancelled is not None:
        raise cancelled
