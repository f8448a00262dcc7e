"""LitServe: its API process and one worker process, with the fast queue."""

from __future__ import annotations

from typing import Any

import litserve
import redis
from fastapi import Response

from loadtest.peers.handler import Handler
from loadtest.peers.servers import port


class Rank(litserve.LitAPI):  # type: ignore[misc]
    """The handler."""

    def setup(self, device: str) -> None:
        """In the worker process."""
        self._handler = Handler()
        self._store = redis.Redis.from_url(self._handler.redis_url)

    def decode_request(self, request: Any) -> Any:
        """The body, parsed by the server."""
        return request

    def predict(self, asked: Any) -> bytes:
        """Answer one request."""
        rows: Any = self._store.mget(self._handler.keys(asked))
        return self._handler.answer(asked, rows)

    def encode_response(self, output: bytes) -> Response:
        """It is serialised already."""
        return Response(output, media_type="application/json")


if __name__ == "__main__":
    api = Rank(api_path="/rank")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run(
        host="127.0.0.1",
        port=port(),
        num_api_servers=1,
        log_level="warning",
        access_log=False,
        generate_client_file=False,
    )
