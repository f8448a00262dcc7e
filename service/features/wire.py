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

from service.features.commands import mget
from service.features.store import Asked

_MORE = object()
Answer = asyncio.Future["list[bytes | None]"]


class _OutOfStep(Exception):
    """What came is no answer to what was asked; nor can the next be."""


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
        self._due: deque[tuple[Answer, int]] = deque()  # and how many values it has
        self._heard = 0
        self._silence: asyncio.TimerHandle | None = None
        self.lost = False
        self._transport.set_protocol(self)
        if not self._transport.is_closing():
            self._transport.set_write_buffer_limits(high=0)  # uvloop then writes without delay

    @staticmethod
    async def open(pool: redis.asyncio.ConnectionPool, timeout_s: float) -> Wire:
        """Connect, as the pool would; raises redis.RedisError."""
        connection: Any = cast("Any", pool).make_connection()
        try:
            await connection.connect()
        except RuntimeError as error:  # uvloop's word for a connection that ends as it is made
            await connection.disconnect(nowait=True)
            raise redis.ConnectionError(f"the connection is lost: {error}") from error
        return Wire(connection, timeout_s)

    def mget(self, asked: Sequence[Asked]) -> Answer:
        """Ask for the values of keys, at once; there is at least one.

        Returns:
            A future: the values, or redis.RedisError.
        """
        answer: Answer = self._loop.create_future()
        # it may have ended before it was ours: then nobody has told us
        self.lost = self.lost or self._transport.is_closing()
        if self.lost:
            answer.set_exception(redis.ConnectionError("the connection is lost"))
            return answer
        self._due.append((answer, sum(len(ids) for _, ids in asked)))
        self._transport.write(mget(asked))
        if self._silence is None:
            self._listen()
        return answer

    def data_received(self, data: bytes) -> None:
        """Called by the loop: give each answer to whom it is due."""
        self._heard += 1
        self._reader.feed(data)
        try:
            while (answer := self._reader.gets()) is not _MORE:
                self._hand_over(answer)
        except (hiredis.ProtocolError, _OutOfStep) as error:
            self._end(redis.ConnectionError(f"not an answer of Redis: {error}"))

    def _hand_over(self, answer: Any) -> None:
        if not self._due:
            raise _OutOfStep("nothing was asked")
        due, values = self._due[0]
        if isinstance(answer, hiredis.ReplyError):
            error = redis.ResponseError(str(answer))
        elif not isinstance(answer, list) or len(answer) != values:
            raise _OutOfStep(f"{values} values were asked for")
        else:
            error = None
        self._due.popleft()
        if due.done():  # nobody waits any more
            return
        if error is not None:
            due.set_exception(error)
        else:
            due.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop: no answer will come."""
        self._fail(redis.ConnectionError(f"the connection is lost: {exc or 'closed'}"))
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
        self._fail(why)
        if not self._transport.is_closing():
            self._transport.abort()

    def _fail(self, why: Exception) -> None:
        self.lost = True
        if self._silence is not None:
            self._silence.cancel()
        for due, _ in self._due:
            if not due.done():
                due.set_exception(why)
        self._due.clear()
