"""A connection to Redis that many reads share: commands go out as they come, answers come in order.

redis-py makes the connection: address, Sentinel, TLS, user and password are its business. From then
on the socket is read here, because its layers cost more than the MGET: each answer goes to the
oldest command that has none, so a reader that has gone away leaves nothing for the next.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, cast

import hiredis
import redis
import redis.asyncio

_MORE = object()
Answer = asyncio.Future["list[bytes | None]"]


class Wire(asyncio.Protocol):
    """An open connection, by RESP2.

    Args:
        connection: of redis-py, connected.
        timeout_s: longest it may stay silent while an answer is due, seconds.

    Attributes:
        lost: whether it has ended; then it stays so.
    """

    def __init__(self, connection: Any, timeout_s: float) -> None:
        self._connection = connection
        self._transport: asyncio.Transport = connection._writer.transport
        self._streams = self._transport.get_protocol()
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(notEnoughData=_MORE)
        self._due: deque[Answer] = deque()
        self._heard = 0
        self._silence: asyncio.TimerHandle | None = None
        self._why: Exception | None = None
        self.lost = False
        self._transport.set_protocol(self)

    @staticmethod
    async def open(pool: redis.asyncio.ConnectionPool, timeout_s: float) -> Wire:
        """Connect, as the pool would; raises redis.RedisError."""
        connection: Any = cast("Any", pool).make_connection()
        await connection.connect()
        return Wire(connection, timeout_s)

    def mget(self, keys: Sequence[str]) -> Answer:
        """Ask for the values of keys.

        Returns:
            A future: the values, or redis.RedisError.
        """
        answer: Answer = self._loop.create_future()
        if self.lost:
            answer.set_exception(redis.ConnectionError("the connection is lost"))
            return answer
        self._due.append(answer)
        command: Any = ("MGET", *keys)
        self._transport.write(hiredis.pack_command(command))
        if self._silence is None:
            self._listen()
        return answer

    def data_received(self, data: bytes) -> None:
        """Called by the loop: give each answer to whom it is due."""
        self._heard += 1
        self._reader.feed(data)
        try:
            while (answer := self._reader.gets()) is not _MORE:
                due = self._due.popleft()
                if due.done():
                    continue
                if isinstance(answer, hiredis.ReplyError):
                    due.set_exception(redis.ResponseError(str(answer)))
                else:
                    due.set_result(answer)
        except (hiredis.ProtocolError, IndexError) as error:
            self._end(redis.ConnectionError(f"not an answer of Redis: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop: no answer will come."""
        self.lost = True
        if self._silence is not None:
            self._silence.cancel()
        why = self._why or redis.ConnectionError(f"the connection is lost: {exc or 'closed'}")
        for due in self._due:
            if not due.done():
                due.set_exception(why)
        self._due.clear()
        self._streams.connection_lost(exc)

    async def close(self) -> None:
        """End the connection."""
        await self._connection.disconnect()

    def _listen(self) -> None:
        self._silence = self._loop.call_later(self._timeout_s, self._check_silence, self._heard)

    def _check_silence(self, heard: int) -> None:
        self._silence = None
        if not self._due:
            return
        if heard == self._heard:
            self._end(redis.TimeoutError(f"no answer within {self._timeout_s:g} s"))
        else:
            self._listen()

    def _end(self, why: Exception) -> None:
        self._why = self._why or why
        self.lost = True
        self._transport.abort()
