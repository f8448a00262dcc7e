"""A keep-alive HTTP/1.1 connection that costs the load generator little: bytes out, bytes in."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")
Answered = Callable[[int, bytes], None]
LOST = 0
"""In place of a status: the connection ended before the answer."""

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length:"
_CLOSE = b"\r\nconnection: close"


class Connection(asyncio.Protocol):
    """Asks one request at a time; the answer is handed to a callback as it arrives."""

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None
        self._answered: Answered | None = None
        self._received = bytearray()
        self._wanted = 0
        self._is_last = False

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._transport is not None and not self._transport.is_closing()

    def ask(self, message: bytes, answered: Answered) -> None:
        """Send a request; `answered` gets status and body, or LOST and nothing."""
        assert self._transport is not None
        assert self._answered is None
        self._answered = answered
        self._transport.write(message)

    def close(self) -> None:
        """End it."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Called by the loop: hand the answer on once it is whole."""
        received = self._received
        received += data
        if not self._wanted:
            end = received.find(_HEAD_END)
            if end < 0:
                return
            head = bytes(received[:end]).lower()
            self._wanted = end + len(_HEAD_END) + _content_length(head)
            self._is_last = _CLOSE in head
        if len(received) < self._wanted:
            return
        whole = bytes(received)
        received.clear()
        self._wanted = 0
        if self._is_last:  # not to be asked again
            self.close()
        self._hand_on(int(whole[9:12]), whole[whole.find(_HEAD_END) + len(_HEAD_END) :])

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self._transport = None
        self._hand_on(LOST, b"")

    def _hand_on(self, status: int, body: bytes) -> None:
        answered, self._answered = self._answered, None
        if answered is not None:
            answered(status, body)


def _content_length(head: bytes) -> int:
    lines = head.split(b"\r\n")
    return next(int(line[len(_LENGTH) :]) for line in lines if line.startswith(_LENGTH))


async def connect(url: str, count: int) -> list[Connection]:
    """Open `count` connections to the host and port of `url`."""
    where = urlsplit(url)
    loop = asyncio.get_running_loop()
    opened = [
        await loop.create_connection(Connection, str(where.hostname), where.port or 80)
        for _ in range(count)
    ]
    return [connection for _, connection in opened]


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run on a loop whose timers are exact to microseconds; those of epoll are to milliseconds."""
    with asyncio.Runner(loop_factory=_loop) as runner:
        return runner.run(main)


def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.SelectorEventLoop(selectors.SelectSelector())
