"""The port of several workers: one process accepts, and hands each connection to a worker.

A connection goes to the worker that has the fewest, and is kept here until that worker has said
that it took it: should the worker end before, another gets it. Nothing is read from it here.
See docs/decisions/0010 for what the kernel's own ways of sharing a port do instead.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections import deque

log = logging.getLogger(__name__)

REPORT = struct.Struct("<II")
"""What a worker says on its channel: connections taken so far, connections open now."""

CONNECTION = b"c"
"""The message that carries a connection to a worker."""

BACKLOG = 2048
_MOST_UNTAKEN = 32
TRY_AGAIN_S = 1.0
"""How long nothing is accepted after that has failed, seconds."""


def listening_socket(host: str, port: int, shared: bool = False) -> socket.socket:
    """A socket that listens on the address; connections wait in it until they are accepted.

    Args:
        shared: whether another instance may have the address as well. Then it is bound only, and
            connections go to the other one until `listen` is called.

    Raises:
        OSError: the address is taken, or not one of this machine.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
        if not shared:
            listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def next_connection(listener: socket.socket) -> socket.socket | None:
    """Accept a connection; None when none waits.

    Args:
        listener: non-blocking.

    Raises:
        OSError: not now; no more files may be open, say.
    """
    while True:
        try:
            return listener.accept()[0]
        except BlockingIOError:
            return None
        except ConnectionAbortedError:
            continue  # the client has left already


class Line:
    """The way to one worker.

    Args:
        channel: this process's end of a SOCK_SEQPACKET pair.
    """

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.untaken: deque[socket.socket] = deque()
        self._taken = 0
        self._open = 0
        channel.setblocking(False)

    @property
    def load(self) -> int:
        """Connections that the worker has, or is about to have."""
        return self._open + len(self.untaken)

    async def first_report(self) -> bool:
        """Wait until the worker is there; False when it ended instead."""
        try:
            message = await asyncio.get_running_loop().sock_recv(self.channel, REPORT.size)
        except ConnectionError:
            return False
        return self._read(message)

    def read_report(self) -> bool:
        """Read what the worker has said; False when it has ended."""
        try:
            return self._read(self.channel.recv(REPORT.size))
        except BlockingIOError:
            return True
        except ConnectionError:
            return False

    def _read(self, message: bytes) -> bool:
        if not message:
            return False
        taken, self._open = REPORT.unpack(message)
        for _ in range(taken - self._taken):
            self.untaken.popleft().close()
        self._taken = taken
        return True

    def hand(self, connection: socket.socket) -> None:
        """Hand a connection over; a worker that has ended is noticed when its channel is read."""
        self.untaken.append(connection)
        try:
            socket.send_fds(self.channel, [CONNECTION], [connection.fileno()])
        except ConnectionError:
            log.debug("a worker has ended; its connections go to another")


class Port:
    """Accepts, from `open` to `close`, for the workers that have joined."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._lines: deque[Line] = deque()
        self._homeless: deque[socket.socket] = deque()
        self._loop = asyncio.get_running_loop()
        self._is_open = False

    def open(self) -> None:
        """Begin to accept."""
        self._listener.listen(BACKLOG)
        self._is_open = True
        self._resume()

    def join(self, line: Line) -> None:
        """Let a worker have connections, until it ends."""
        self._lines.append(line)
        self._loop.add_reader(line.channel, self._hear, line)
        self._resume()

    def close(self) -> None:
        """Hand over what has connected so far, and stop listening."""
        if self._is_open:
            self._accept()
            self._is_open = False
            self._loop.remove_reader(self._listener)
        self._listener.close()

    def _hear(self, line: Line) -> None:
        if not line.read_report():
            self._loop.remove_reader(line.channel)
            line.channel.close()
            self._lines.remove(line)
            self._homeless.extend(line.untaken)
        self._resume()

    def _resume(self) -> None:
        while self._homeless and (line := self._next()):
            line.hand(self._homeless.popleft())
        if self._is_open:
            self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        while line := self._next():
            try:
                connection = next_connection(self._listener)
            except OSError as error:
                log.error("cannot accept connections: %s", error.strerror)  # noqa: TRY400
                self._loop.call_later(TRY_AGAIN_S, self._resume)
                break
            if connection is None:
                return
            line.hand(connection)
        self._loop.remove_reader(self._listener)  # until a worker reports

    def _next(self) -> Line | None:
        """The worker with the fewest connections; those that have as few take turns."""
        self._lines.rotate()
        with_room = (each for each in self._lines if len(each.untaken) < _MOST_UNTAKEN)
        return min(with_room, key=lambda each: each.load, default=None)
