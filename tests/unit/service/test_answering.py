"""The ASGI endpoints: what they refuse before they look."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from service.answering import Endpoint
from service.metrics import Metrics
from service.settings import Settings
from service.values import Query, Scored

SCOPE = {"type": "http", "method": "POST", "path": "/score", "headers": []}


def ask(body: bytes, wait_s: float) -> tuple[int, Any]:
    """Status and content of what an endpoint answers when `wait_s` of work is waiting."""
    sent: list[Any] = []

    async def work(query: Query) -> Scored:
        raise AssertionError("no query may come through")

    async def receive() -> Any:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        sent.append(message)

    endpoint: Endpoint[Scored] = Endpoint(
        Settings(timeout_ms=200), Metrics(), "score", lambda: wait_s, work, lambda *_: b""
    )
    asyncio.run(endpoint(SCOPE, receive, send))
    return sent[0]["status"], json.loads(sent[1]["body"])


def test_a_request_that_cannot_be_answered_in_time_is_refused_before_it_is_parsed() -> None:
    status, content = ask(b"{", wait_s=0.25)
    assert (status, content["code"]) == (504, "deadline_exceeded")
    assert "about 250 ms of work" in content["detail"]


def test_it_is_parsed_while_there_is_time() -> None:
    status, content = ask(b"{", wait_s=0.15)
    assert (status, content["code"]) == (422, "invalid_request")
