"""Answering: one HTTP request -> query -> work -> bytes, or a problem. Every answer is counted."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from service.errors import BodyTooLarge, InvalidRequest, ServiceError, UnsupportedMediaType
from service.metrics import Metrics
from service.problems import REQUEST_ID, problem
from service.settings import Settings
from service.values import Query, Ranked, Scored
from service.wire import new_request_id, parse_query

log = logging.getLogger(__name__)
Answer = TypeVar("Answer", Scored, Ranked)

_MAX_REQUEST_ID = 128
_PATIENCE_S = 0.005
"""How long an answer is worked on before its client is watched for leaving."""
_STATUS_CLIENT_CLOSED = 499


async def answer(
    settings: Settings,
    metrics: Metrics,
    request: Request,
    route: str,
    work: Callable[[Query], Coroutine[Any, Any, Answer]],
    encode: Callable[[Answer, bool], bytes],
) -> Response:
    arrived = time.monotonic()
    request_id = request.headers.get(REQUEST_ID) or new_request_id()
    status, code = 200, "ok"
    try:
        body = await _read_body(request, settings.max_body_bytes)
        query, columns = parse_query(
            body,
            _checked(request_id),
            arrived,
            settings.timeout_ms / 1000,
            settings.max_candidates,
        )
        request_id = query.request_id
        answer = await _while_connected(request, work(query))
        _count_degraded(metrics, answer)
        return Response(
            encode(answer, columns),
            media_type="application/json",
            headers={REQUEST_ID: request_id},
        )
    except ServiceError as error:
        status, code = error.status, error.code
        return problem(error, request_id)
    except (ClientDisconnect, asyncio.CancelledError):
        status, code = _STATUS_CLIENT_CLOSED, "client_closed"
        return Response(status_code=status)
    except Exception:
        status, code = 500, "internal_error"
        log.exception("request %s failed", request_id)
        return problem(ServiceError("the server failed; see its log"), request_id)
    finally:
        metrics.answers.labels(route, status, code).inc()
        metrics.request_seconds.labels(route).observe(time.monotonic() - arrived)


async def _read_body(request: Request, most_bytes: int) -> bytes:
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip()
    if media_type.lower() != "application/json":
        raise UnsupportedMediaType(f"content-type {media_type!r}; send application/json")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most_bytes:
            raise BodyTooLarge(f"the body has more than {most_bytes} bytes")
    return bytes(body)


def _checked(request_id: str) -> str:
    if len(request_id) > _MAX_REQUEST_ID:
        raise InvalidRequest.at(REQUEST_ID, f"at most {_MAX_REQUEST_ID} characters")
    return request_id


async def _while_connected(request: Request, work: Coroutine[Any, Any, Answer]) -> Answer:
    """The result of `work`, unless the client leaves first: then it is cancelled."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=_PATIENCE_S)
        if not task.done():
            leaving = asyncio.ensure_future(_disconnected(request))
            try:
                await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                leaving.cancel()
            if not task.done():
                raise ClientDisconnect
    finally:
        task.cancel()
    return task.result()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _count_degraded(metrics: Metrics, answer: Any) -> None:
    scored = answer.scored if isinstance(answer, Ranked) else answer
    assert isinstance(scored, Scored)
    for reason in scored.degraded.reasons:
        metrics.degraded_answers.labels(reason).inc()
