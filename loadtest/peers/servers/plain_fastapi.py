"""FastAPI on uvicorn with uvloop and httptools: the handler in an `async def` endpoint."""

from __future__ import annotations

from typing import Any

import orjson
import redis.asyncio
import uvicorn
from fastapi import FastAPI, Request, Response

from loadtest.peers.handler import Handler
from loadtest.peers.servers import port

handler = Handler()
store = redis.asyncio.Redis.from_url(handler.redis_url)
app = FastAPI()


@app.post("/rank")
async def rank(request: Request) -> Response:
    """Answer one request."""
    asked = orjson.loads(await request.body())
    rows: Any = await store.mget(handler.keys(asked))
    return Response(handler.answer(asked, rows), media_type="application/json")


if __name__ == "__main__":
    uvicorn.run(
        app, port=port(), loop="uvloop", http="httptools", access_log=False, log_level="warning"
    )
