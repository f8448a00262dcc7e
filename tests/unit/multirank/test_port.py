"""The port of several workers: who gets a connection, and that none is lost."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from multirank.port import _MOST_UNTAKEN, CONNECTION, REPORT, Line, Port, listening_socket


class FakeWorker:
    """The other end of a line: takes what it is told to take."""

    def __init__(self, port: Port) -> None:
        here, self.channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel.setblocking(False)
        self.taken: list[socket.socket] = []
        port.join(Line(here))

    async def take(self) -> socket.socket:
        """Take one connection, and report."""
        async with asyncio.timeout(10):
            while True:
                try:
                    message, descriptors, _, _ = socket.recv_fds(self.channel, 1, 1)
                    break
                except BlockingIOError:
                    await asyncio.sleep(0.001)
        assert message == CONNECTION
        self.taken.append(socket.socket(fileno=descriptors[0]))
        self.report()
        return self.taken[-1]

    def close(self, connection: socket.socket) -> None:
        """Close a connection, and report."""
        connection.close()
        self.report()

    def report(self) -> None:
        still_open = sum(each.fileno() >= 0 for each in self.taken)
        self.channel.send(REPORT.pack(len(self.taken), still_open))

    def end(self) -> None:
        """As a process that dies: all its files are closed."""
        for each in (self.channel, *self.taken):
            each.close()


class Bed:
    """A port and its clients."""

    def __init__(self) -> None:
        self._listener = listening_socket("127.0.0.1", 0)
        self.address = self._listener.getsockname()
        self.port = Port(self._listener)
        self.port.open()
        self._workers: list[FakeWorker] = []
        self._clients: list[socket.socket] = []

    def connect(self) -> socket.socket:
        """A client whose connection the kernel has completed."""
        self._clients.append(socket.create_connection(self.address, 10))
        return self._clients[-1]

    def worker(self) -> FakeWorker:
        """A worker that has joined."""
        self._workers.append(FakeWorker(self.port))
        return self._workers[-1]

    async def end(self) -> None:
        """Leave no file open."""
        self.port.close()
        for worker in self._workers:
            worker.end()
        await asyncio.sleep(0.02)  # the port hears of it
        for each in (*self._clients, *self.port._homeless):
            each.close()


Scenario = Callable[[Bed], Coroutine[Any, Any, None]]


def run(scenario: Scenario) -> None:
    async def main() -> None:
        bed = Bed()
        try:
            await scenario(bed)
        finally:
            await bed.end()

    asyncio.run(main())


async def same(client: socket.socket, server: socket.socket) -> bool:
    """Whether the two are the ends of one connection."""
    return bool(client.getsockname() == server.getpeername())


def test_connections_go_round_while_workers_have_equally_many() -> None:
    async def scenario(bed: Bed) -> None:
        workers = [bed.worker() for _ in range(3)]
        clients = [bed.connect() for _ in range(6)]
        for worker in workers:
            await worker.take()
            await worker.take()
        assert len({client.getsockname() for client in clients}) == 6
        peers = {each.getpeername() for worker in workers for each in worker.taken}
        assert peers == {client.getsockname() for client in clients}

    run(scenario)


def test_a_worker_with_fewer_connections_comes_first() -> None:
    async def scenario(bed: Bed) -> None:
        first, second = bed.worker(), bed.worker()
        clients = [bed.connect() for _ in range(4)]
        for worker in (first, second):
            for _ in range(2):
                await worker.take()
        for connection in list(second.taken):
            second.close(connection)
        await asyncio.sleep(0.05)
        for _ in range(2):
            clients.append(bed.connect())
            assert await same(clients[-1], await second.take())

    run(scenario)


def test_what_a_worker_had_not_taken_goes_to_another() -> None:
    async def scenario(bed: Bed) -> None:
        dying = bed.worker()
        clients = [bed.connect() for _ in range(3)]
        await dying.take()
        await asyncio.sleep(0.05)  # the others are on their way to it
        clients[1].sendall(b"hello")
        other = bed.worker()
        dying.end()
        assert clients[0].recv(1) == b""  # its own went with it
        assert await same(clients[1], await other.take())
        assert other.taken[0].recv(5) == b"hello"
        assert await same(clients[2], await other.take())

    run(scenario)


def test_without_a_worker_connections_wait() -> None:
    async def scenario(bed: Bed) -> None:
        early = bed.connect()
        await asyncio.sleep(0.02)
        worker = bed.worker()
        assert await same(early, await worker.take())
        worker.end()
        await asyncio.sleep(0.02)
        between = bed.connect()
        assert await same(between, await bed.worker().take())

    run(scenario)


def test_a_worker_that_takes_nothing_holds_up_only_so_many() -> None:
    async def scenario(bed: Bed) -> None:
        stuck, working = bed.worker(), bed.worker()
        clients = [bed.connect() for _ in range(4 * _MOST_UNTAKEN)]
        for _ in range(3 * _MOST_UNTAKEN):
            await working.take()
        assert len(clients) - len(working.taken) == _MOST_UNTAKEN
        for _ in range(_MOST_UNTAKEN):
            await stuck.take()

    run(scenario)


def test_closing_hands_over_what_has_connected() -> None:
    async def scenario(bed: Bed) -> None:
        worker = bed.worker()
        clients = [bed.connect() for _ in range(5)]  # the loop has not accepted one yet
        bed.port.close()
        for _ in clients:
            await worker.take()
        with pytest.raises(ConnectionRefusedError):
            bed.connect()

    run(scenario)


def test_an_address_is_had_by_one_only() -> None:
    with listening_socket("127.0.0.1", 0) as had, pytest.raises(OSError, match="in use"):
        listening_socket(*had.getsockname())
    with listening_socket("::1", 0) as had:
        assert had.family == socket.AF_INET6
