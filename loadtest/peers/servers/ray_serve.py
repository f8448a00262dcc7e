"""Ray Serve: one replica behind its HTTP proxy, tuned for throughput as its manual says."""

from __future__ import annotations

import signal
from typing import Any

import orjson
import ray
import redis.asyncio
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from loadtest.peers.handler import Handler
from loadtest.peers.servers import port


@serve.deployment(num_replicas=1, max_ongoing_requests=100, ray_actor_options={"num_cpus": 1})
class Rank:
    """The handler."""

    def __init__(self) -> None:
        self._handler = Handler()
        self._store = redis.asyncio.Redis.from_url(self._handler.redis_url)

    async def __call__(self, request: Request) -> Response:
        """Answer one request."""
        asked: Any = orjson.loads(await request.body())
        rows: Any = await self._store.mget(self._handler.keys(asked))
        return Response(self._handler.answer(asked, rows), media_type="application/json")


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="warning")
    serve.start(http_options={"host": "127.0.0.1", "port": port(), "access_log": False})
    application: Any = Rank.bind()  # type: ignore[attr-defined]
    serve.run(application, route_prefix="/rank", logging_config={"enable_access_log": False})
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    ray.shutdown()
