"""uvicorn with connections that were accepted elsewhere, and an end that no client notices.

On SIGTERM, what is in the listener's queue is accepted before it closes: uvicorn alone would reset
it. Connections that are in use learn with their next answer, by `Connection: close`, to go
elsewhere; those that stay idle are closed after a moment.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

import uvicorn

from multirank.port import BACKLOG, TRY_AGAIN_S, next_connection

log = logging.getLogger(__name__)

_IDLE_S = 1.0
"""How long a connection may take to ask once more after the end was asked for."""
_LOOK_S = 0.02


class Server(uvicorn.Server):
    """Serves connections that are handed to `begin`.

    Args:
        may_accept: set once connections may come; None: at once.
    """

    def __init__(self, config: uvicorn.Config, may_accept: asyncio.Event | None) -> None:
        super().__init__(config)
        self._may_accept = may_accept
        self._beginning: set[asyncio.Task[None]] = set()

    @property
    def open_connections(self) -> int:
        """Connections that are served, or about to be."""
        return len(self.server_state.connections) + len(self._beginning)

    def begin(self, connection: socket.socket) -> None:
        """Serve an accepted connection."""
        task = asyncio.ensure_future(self._begin(connection))
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)

    async def _begin(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        connection.setblocking(False)
        try:
            await loop.connect_accepted_socket(self._protocol, connection)
        except OSError as error:
            log.info("a connection was gone before it was served: %s", error)
            connection.close()

    def _protocol(self) -> asyncio.Protocol:
        protocol: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and wait until connections may come, or the end is asked for."""
        await super().startup(sockets)
        waits_for = self._may_accept
        # uvicorn has no event for its end
        while waits_for and not (waits_for.is_set() or self.should_exit):  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_S)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what was accepted; let every connection end with an answer, if it asks at all."""
        await asyncio.gather(*self._beginning)
        self.server_state.default_headers.append((b"connection", b"close"))
        loop = asyncio.get_running_loop()
        ends = loop.time() + _IDLE_S
        # uvicorn has no event for its last connection
        while self.server_state.connections and loop.time() < ends:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_S)
        await super().shutdown(sockets)


class ListeningServer(Server):
    """Accepts from a listening socket, to the last connection in its queue.

    Args:
        listener: non-blocking.
        may_accept: as for `Server`.
    """

    def __init__(
        self, config: uvicorn.Config, may_accept: asyncio.Event | None, listener: socket.socket
    ) -> None:
        super().__init__(config, may_accept)
        self._listener = listener

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept."""
        await super().startup(sockets)
        if self.should_exit:
            self._listener.close()
            return
        self._listener.listen(BACKLOG)
        self._resume()
        log.info("running on %s (Ctrl-C to end)", url_of(self._listener))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept what has connected, and end."""
        if self._listener.fileno() >= 0:  # it has listened
            asyncio.get_running_loop().remove_reader(self._listener)
            self._accept()
            self._listener.close()
        await super().shutdown(sockets)

    def _resume(self) -> None:
        if self._listener.fileno() >= 0:  # not closed meanwhile
            asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        try:
            while (connection := next_connection(self._listener)) is not None:
                self.begin(connection)
        except OSError as error:
            log.error("cannot accept connections: %s", error.strerror)  # noqa: TRY400
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._listener)
            loop.call_later(TRY_AGAIN_S, self._resume)


def url_of(listener: socket.socket) -> str:
    """Where a socket listens."""
    address: tuple[Any, ...] = listener.getsockname()
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return f"http://{host}:{address[1]}"
