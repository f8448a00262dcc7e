"""mosec: one worker process behind its HTTP server, which is written in Rust."""

from __future__ import annotations

import sys
from typing import Any

import orjson
import redis
from mosec import Runtime, Server, Worker

from loadtest.peers.handler import Handler
from loadtest.peers.servers import port


class Rank(Worker):  # type: ignore[misc]
    """The handler."""

    def __init__(self) -> None:
        super().__init__()
        self._handler = Handler()
        self._store = redis.Redis.from_url(self._handler.redis_url)

    def deserialize(self, data: bytes) -> Any:
        """The body of a request."""
        return orjson.loads(data)

    def forward(self, data: Any) -> bytes:
        """Answer one request."""
        rows: Any = self._store.mget(self._handler.keys(data))
        return self._handler.answer(data, rows)

    def serialize(self, data: bytes) -> bytes:
        """It is serialised already."""
        return data


if __name__ == "__main__":
    sys.argv[1:] = ["--address", "127.0.0.1", "--port", str(port()), "--log-level", "warning"]
    server = Server()
    server.register_runtime({"/rank": [Runtime(Rank, num=1)]})
    server.run()
