"""BentoML: one worker, the handler in an asynchronous API method."""

from __future__ import annotations

from typing import Any

import bentoml
import redis.asyncio
from starlette.responses import Response

from loadtest.peers.handler import Handler


@bentoml.service(workers=1, traffic={"timeout": 30}, metrics={"enabled": False})
class Rank:
    """The handler."""

    def __init__(self) -> None:
        self._handler = Handler()
        self._store = redis.asyncio.Redis.from_url(self._handler.redis_url)

    @bentoml.api(route="/rank")  # type: ignore[untyped-decorator]
    async def rank(
        self,
        model: str,
        user: dict[str, Any],
        context: dict[str, Any],
        candidates: dict[str, Any],
        format: str,
    ) -> Response:
        """Answer one request."""
        asked = {"user": user, "context": context, "candidates": candidates}
        rows: Any = await self._store.mget(self._handler.keys(asked))
        return Response(self._handler.answer(asked, rows), media_type="application/json")
