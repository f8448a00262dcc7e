"""A connection to Redis that many reads share: commands go out as they come, answers come in order.

redis-py makes the connection: address, Sentinel, TLS, user and password are its business. From then
on the socket is read here, because its layers cost more than the MGET: each answer goes to the
oldest command that has none, so a reader that has gone away leaves nothing for the next.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, cast

import hiredis
import redis
import redis.asyncio

from service.features.commands import Command

_MORE = object()
_VALUES = {bytes, type(None)}
Answer = asyncio.Future["list[bytes | None]"]


class _OutOfStep(Exception):
    """What came is no answer to what was asked; nor can the next be."""


class _Due:
    """A command that has been sent, and what has come of it.

    Attributes:
        answer: for whoever asked. values: so far. refused: the server's word, if it would not.
    """

    __slots__ = ("_command", "_got", "answer", "refused", "values")

    def __init__(self, answer: Answer, command: Command) -> None:
        self.answer = answer
        self.values: list[bytes | None] = []
        self.refused: redis.ResponseError | None = None
        self._command = command
        self._got = 0

    def take(self, answer: Any) -> bool:
        """Take an answer; whether it was the last."""
        self._got += 1
        if isinstance(answer, hiredis.ReplyError):
            self.refused = redis.ResponseError(str(answer))
        elif self._command.one_by_one:
            if answer is not None and not isinstance(answer, bytes):
                raise _OutOfStep("a value was asked for")
            self.values.append(answer)
        elif not isinstance(answer, list) or len(answer) != self._command.values:
            raise _OutOfStep(f"{self._command.values} values were asked for")
        elif not _VALUES.issuperset(map(type, answer)):
            raise _OutOfStep("values were asked for")
        else:
            self.values = answer
        return not self._command.one_by_one or self._got == self._command.values


class Wire(asyncio.Protocol):
    """An open connection, by RESP2.

    Args:
        connection: of redis-py, connected.
        timeout_s: longest it may stay without an answer while one is due, seconds.

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
        self._due: deque[_Due] = deque()
        self._answers = 0
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

    def ask(self, command: Command) -> Answer:
        """Send a command at once.

        Returns:
            A future: the values, or redis.RedisError.
        """
        answer: Answer = self._loop.create_future()
        # it may have ended before it was ours: then nobody has told us
        self.lost = self.lost or self._transport.is_closing()
        if self.lost:
            answer.set_exception(redis.ConnectionError("the connection is lost"))
            return answer
        self._due.append(_Due(answer, command))
        self._transport.write(command.sent)
        if self._silence is None:
            self._listen()
        return answer

    def data_received(self, data: bytes) -> None:
        """Called by the loop: give each answer to whom it is due."""
        self._reader.feed(data)
        try:
            while (answer := self._reader.gets()) is not _MORE:
                self._hand_over(answer)
        except (hiredis.ProtocolError, _OutOfStep) as error:
            self._end(redis.ConnectionError(f"not an answer of Redis: {error}"))

    def _hand_over(self, answer: Any) -> None:
        if not self._due:
            raise _OutOfStep("nothing was asked")
        self._answers += 1
        due = self._due[0]
        if not due.take(answer):
            return
        self._due.popleft()
        if due.answer.done():  # nobody waits any more
            return
        if due.refused is not None:
            due.answer.set_exception(due.refused)
        else:
            due.answer.set_result(due.values)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop: no answer will come."""
        self._fail(redis.ConnectionError(f"the connection is lost: {exc or 'closed'}"))
        self._streams.connection_lost(exc)

    async def close(self) -> None:
        """End the connection."""
        await self._connection.disconnect()

    def _listen(self) -> None:
        self._silence = self._loop.call_later(self._timeout_s, self._check_silence, self._answers)

    def _check_silence(self, answers: int) -> None:
        self._silence = None
        if not self._due:
            return
        if answers == self._answers:  # or what was heard is no answer, and never will be
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
        for due in self._due:
            if not due.answer.done():
                due.answer.set_exception(why)
        self._due.clear()
