"""A TCP proxy between the service and Redis: it makes the network slow, or cuts answers short."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from typing import Literal

_CHUNK = 1 << 16
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST instead of what is left
_SHORTEST_CUT = 64  # bytes; what is less is a reply to some small command


class Proxy:
    """Forwards connections of a local port to a local port, on a thread of its own.

    Attributes:
        port: where it listens.
        delay_s: added to each answer on its way back, seconds.
        resets: whether connections are reset in the middle of their next longer answer.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self.port = 0
        self.delay_s = 0.0
        self.resets = False
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", 0, limit=_CHUNK)
        )
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            upstream, downstream = await asyncio.open_connection("127.0.0.1", self._target_port)
            ways = [
                asyncio.ensure_future(self._forward(reader, downstream, "to Redis")),
                asyncio.ensure_future(self._forward(upstream, writer, "back")),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                downstream.close()
        writer.close()

    async def _forward(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        way: Literal["to Redis", "back"],
    ) -> None:
        """Forward until one side ends; late, but in order, as TCP does."""
        loop = asyncio.get_running_loop()
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        sending = asyncio.ensure_future(_send(under_way, writer))
        try:
            with contextlib.suppress(OSError):
                while data := await reader.read(_CHUNK):
                    if way == "back" and self.resets and len(data) >= _SHORTEST_CUT:
                        writer.write(data[: len(data) // 2])
                        await asyncio.sleep(0)
                        _reset(writer)
                        return
                    delay_s = self.delay_s if way == "back" else 0.0
                    under_way.put_nowait((loop.time() + delay_s, data))
        finally:
            sending.cancel()


async def _send(
    under_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter
) -> None:
    loop = asyncio.get_running_loop()
    while not writer.is_closing():
        due, data = await under_way.get()
        if (wait_s := due - loop.time()) > 0:
            await asyncio.sleep(wait_s)
        writer.write(data)


def _reset(writer: asyncio.StreamWriter) -> None:
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
