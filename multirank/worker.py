"""`python -m multirank.worker`: one of several processes of the scorer, started by the supervisor.

It does not listen. Connections come from the supervisor (`port.py`) over a channel, on which it
reports how many it has taken and has open; the first report says that it is there. When the other
end closes, the supervisor is gone, and so is this process, once it has answered.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import uvicorn
from prometheus_client.values import close_all_multiprocess_files

from multirank.port import CONNECTION, REPORT
from multirank.server import Server
from multirank.serving import UVICORN, start_logging, stop_with_0
from service.app import create_app
from service.settings import load_settings
from service.worker import Worker

log = logging.getLogger(__name__)


class _Server(Server):
    """uvicorn, with connections that another process has accepted."""

    def __init__(
        self, config: uvicorn.Config, may_accept: asyncio.Event | None, channel: socket.socket
    ) -> None:
        super().__init__(config, may_accept)
        self._channel = channel
        self._channel.setblocking(False)
        self._taken = 0
        self._reported = (-1, -1)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        asyncio.get_running_loop().add_reader(self._channel, self._take)
        self._report()

    async def on_tick(self, counter: int) -> bool:
        self._report()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        while self._take():  # accepted before the end was asked for
            pass
        asyncio.get_running_loop().remove_reader(self._channel)
        await super().shutdown(sockets)

    def _take(self) -> bool:
        """Take one connection; False when there is none."""
        try:
            message, descriptors, _, _ = socket.recv_fds(self._channel, len(CONNECTION), 1)
        except BlockingIOError:
            return False
        except ConnectionError:
            message = b""
        if not message:
            asyncio.get_running_loop().remove_reader(self._channel)
            self.should_exit = True
            return False
        self._taken += 1
        self.begin(socket.socket(fileno=descriptors[0]))
        self._report()  # before anything is read from it: from now on it cannot go to another
        return True

    def _report(self) -> None:
        state = (self._taken, self.open_connections)
        if state != self._reported:
            self._reported = state
            with suppress(ConnectionError):  # the supervisor is gone: `_take` sees it
                self._channel.send(REPORT.pack(*state))


def main(arguments: Sequence[str]) -> None:
    """Serve until told to end."""
    parser = argparse.ArgumentParser()
    for name in ("--index", "--count", "--channel"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--replaces", action="store_true")
    given = parser.parse_args(arguments)
    settings = load_settings()  # the supervisor put its own into the environment
    start_logging(settings, f"worker-{given.index} ")
    stop_with_0()
    worker = Worker(given.index, given.count, given.run_dir, given.replaces)
    with socket.socket(fileno=given.channel) as channel:
        app = create_app(settings, worker)
        config = uvicorn.Config(app, **UVICORN)
        server = _Server(config, app.state.service.may_accept, channel)
        try:
            with suppress(KeyboardInterrupt):  # SIGINT, raised again after draining
                server.run(sockets=[])
        finally:
            close_all_multiprocess_files()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main(sys.argv[1:])
