"""The connection to a server that reads share: opened when it is needed, again when it is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress

import redis
import redis.asyncio

from service.features.commands import Command
from service.features.wire import Answer, Wire


class Line:
    """Asks one server.

    Args:
        client: of redis-py, which makes the connections.
        timeout_s: longest one may stay silent while an answer is due, seconds.
    """

    def __init__(self, client: redis.asyncio.Redis, timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._wire: Wire | None = None
        self._opening = asyncio.Lock()

    def ask(self, command: Command) -> Awaitable[list[bytes | None]]:
        """Ask, at once if the connection is open; raises redis.RedisError, OSError, RuntimeError.

        RuntimeError is uvloop's word for a connection that has ended.
        """
        wire = self._wire
        first = None if wire is None or wire.lost else wire.ask(command)
        return self._answer(command, first)

    async def _answer(self, command: Command, first: Answer | None) -> list[bytes | None]:
        if first is not None:
            with suppress(redis.ConnectionError):  # it was idle, and may have been closed
                return await first
        wire = await self._open()
        return await wire.ask(command)

    async def _open(self) -> Wire:
        async with self._opening:
            if self._wire is not None and self._wire.lost:
                await self._wire.close()
                self._wire = None
            if self._wire is None:
                self._wire = await Wire.open(self._client.connection_pool, self._timeout_s)
            return self._wire

    async def close(self) -> None:
        """Close the connection, and those of the client."""
        if self._wire is not None:
            await self._wire.close()
        await self._client.aclose()
