"""The shared connection: each answer to whom it is due, and to nobody once they are out of step."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import redis
import uvloop

from service.features.commands import mget
from service.features.wire import Wire


class Scripted:
    """A server that says what a test tells it, when it tells it."""

    def __init__(self) -> None:
        self.asked = 0
        self.writer: asyncio.StreamWriter

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        while line := await reader.readline():
            if line.startswith(b"*"):
                name = [await reader.readline() for _ in range(2)][1]
                if name.strip() == b"MGET":
                    self.asked += 1
                else:  # what redis-py says when it connects
                    writer.write(b"+OK\r\n")
        writer.close()


def on_wire(test: Callable[[Wire, Scripted], Awaitable[None]], timeout_s: float = 10.0) -> None:
    async def run() -> None:
        scripted = Scripted()
        server = await asyncio.start_server(scripted.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        client = redis.asyncio.Redis(port=port, protocol=2, socket_timeout=timeout_s)
        wire = await Wire.open(client.connection_pool, timeout_s)
        try:
            await test(wire, scripted)
        finally:
            await wire.close()
            await client.aclose()
            server.close()

    asyncio.run(asyncio.wait_for(run(), 20.0))


async def until_asked(scripted: Scripted, times: int) -> None:
    while scripted.asked < times:  # noqa: ASYNC110  there is nothing to wait for but the socket
        await asyncio.sleep(0.001)


def test_answers_in_pieces_go_to_whom_they_are_due() -> None:
    async def test(wire: Wire, scripted: Scripted) -> None:
        first, second, third = (
            wire.ask(mget([("mr:", ["a"])])),
            wire.ask(mget([("mr:", ["b", "c"])])),
            wire.ask(mget([("mr:", ["d"])])),
        )
        first.cancel()  # it has gone away; its answer must not be another's
        await until_asked(scripted, 3)
        for piece in (b"*1\r\n$1\r\na\r\n*2\r\n$1\r", b"\nb\r\n$-1\r\n", b"-ERR no\r\n"):
            scripted.writer.write(piece)
            await asyncio.sleep(0.005)
        assert await second == [b"b", None]
        with pytest.raises(redis.ResponseError, match="no"):
            await third
        assert not wire.lost

    on_wire(test)


@pytest.mark.parametrize(
    "answer",
    [
        b"*1\r\n$1\r\na\r\n",
        b"+OK\r\n",
        b"?",
        b"*2\r\n$1\r\na\r\n$1\r\nb\r\n*0\r\n",
        b"*2\r\n$1\r\na\r\n:1\r\n",
        b"*2\r\n-ERR no\r\n$1\r\na\r\n",
        b"*2\r\n*0\r\n*0\r\n",
        b"*-1\r\n",
    ],
)
def test_out_of_step_nobody_gets_an_answer_any_more(answer: bytes) -> None:
    async def test(wire: Wire, scripted: Scripted) -> None:
        asked = [wire.ask(mget([("mr:", ["a", "b"])])), wire.ask(mget([("mr:", ["c", "d"])]))]
        await until_asked(scripted, 2)
        scripted.writer.write(answer)
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert isinstance(found[1], redis.ConnectionError)
        assert isinstance(found[0], redis.ConnectionError) or answer.endswith(b"*0\r\n")
        assert wire.lost
        with pytest.raises(redis.ConnectionError):
            await wire.ask(mget([("mr:", ["e"])]))

    on_wire(test)


def test_silence_ends_it_and_slowness_does_not() -> None:
    async def test(wire: Wire, scripted: Scripted) -> None:
        slow = [wire.ask(mget([("mr:", ["a"])])) for _ in range(6)]
        await until_asked(scripted, 6)
        for _ in slow:
            await asyncio.sleep(0.1)
            scripted.writer.write(b"*1\r\n$1\r\na\r\n")
        assert await asyncio.gather(*slow) == [[b"a"]] * 6
        with pytest.raises(redis.TimeoutError, match=r"no answer within 0\.4 s"):
            await wire.ask(mget([("mr:", ["b"])]))
        assert wire.lost

    on_wire(test, timeout_s=0.4)


def test_what_never_becomes_an_answer_is_silence() -> None:
    async def test(wire: Wire, scripted: Scripted) -> None:
        asked = wire.ask(mget([("mr:", ["a"])]))
        await until_asked(scripted, 1)
        scripted.writer.write(b"*1\r\n$999999\r\n")
        while not asked.done():
            scripted.writer.write(b"more and more")
            await asyncio.sleep(0.05)
        with pytest.raises(redis.TimeoutError, match=r"no answer within 0\.4 s"):
            await asked
        assert wire.lost

    on_wire(test, timeout_s=0.4)


def test_a_connection_that_ends_fails_all_that_is_due() -> None:
    async def test(wire: Wire, scripted: Scripted) -> None:
        asked = [wire.ask(mget([("mr:", ["a"])])), wire.ask(mget([("mr:", ["b"])]))]
        await until_asked(scripted, 2)
        scripted.writer.close()
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(each) for each in found] == [redis.ConnectionError] * 2
        assert wire.lost

    on_wire(test)


def test_a_connection_that_ended_before_it_was_ours_is_lost() -> None:
    async def run() -> None:
        scripted = Scripted()
        server = await asyncio.start_server(scripted.serve, "127.0.0.1", 0)
        client = redis.asyncio.Redis(port=server.sockets[0].getsockname()[1], protocol=2)
        pool: Any = client.connection_pool
        connection = pool.make_connection()
        await connection.connect()
        transport = connection._writer.transport
        transport.abort()
        await asyncio.sleep(0.01)
        wire = Wire(connection, 1.0)
        with pytest.raises(redis.ConnectionError, match="lost"):
            await wire.ask(mget([("mr:", ["a"])]))
        assert wire.lost
        await wire.close()
        await client.aclose()
        server.close()

    uvloop.run(run())
