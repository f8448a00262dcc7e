"""The listening server: what it does when the machine gives it no more connections."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket

import pytest
import uvicorn

from multirank import server
from multirank.port import listening_socket, next_connection


def test_no_more_files_is_said_once_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures = 0

    def fail_once(listener: socket.socket) -> socket.socket | None:
        nonlocal failures
        failures += 1
        if failures == 1:
            raise OSError(errno.EMFILE, "Too many open files")
        return next_connection(listener)

    async def connection() -> socket.socket:
        listener = listening_socket("127.0.0.1", 0)
        serving = server.ListeningServer(uvicorn.Config("none:app"), None, listener)
        begun: asyncio.Queue[socket.socket] = asyncio.Queue()
        monkeypatch.setattr(serving, "begin", begun.put_nowait)
        with socket.create_connection(listener.getsockname(), 10), listener:
            serving._resume()
            for _ in range(50):  # the connection waits all the time
                await asyncio.sleep(0.001)
            assert failures == 1
            first = await asyncio.wait_for(begun.get(), 10)
            asyncio.get_running_loop().remove_reader(listener)
        return first

    monkeypatch.setattr(server, "next_connection", fail_once)
    with caplog.at_level(logging.ERROR):
        asyncio.run(connection()).close()
    assert [each.message for each in caplog.records] == [
        "cannot accept connections: Too many open files"
    ]
