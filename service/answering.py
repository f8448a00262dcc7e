"""Answering: one HTTP request -> query -> work -> bytes, or a problem. Every answer is counted.

These endpoints speak ASGI themselves: what is asked ten thousand times a second does not pass
through middleware and routing that it has no use for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from starlette.types import Receive, Scope, Send

from service.bodies import JSON, BodyFormat, ClientLeft, format_of, read_body
from service.errors import (
    DeadlineExceeded,
    InvalidRequest,
    MethodNotAllowed,
    ServiceError,
    UnsupportedMediaType,
)
from service.metrics import Metrics
from service.problems import header_text, problem
from service.queries import new_request_id, parse_query, read_content, request_id_of
from service.schemas import MAX_REQUEST_ID
from service.settings import Settings
from service.values import Query, Ranked, Scored

log = logging.getLogger(__name__)
Answer = TypeVar("Answer", Scored, Ranked)

_PATIENCE_S = 0.025
"""How long an answer is worked on before its client is watched for leaving."""
_CLIENT_LEFT = (499, "client_left")


class Endpoint(Generic[Answer]):
    """An ASGI application that answers one route.

    Args:
        least_wait_s: seconds that any request must wait; when they are more than the limit, a
            request is refused before it is parsed, so that refusing stays cheap under overload.
        work: what the route does. encode: its answer, as columns or not, in a form -> the body.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        route: str,
        least_wait_s: Callable[[], float],
        work: Callable[[Query], Coroutine[Any, Any, Answer]],
        encode: Callable[[Answer, bool, BodyFormat], bytes],
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._route = route
        self._least_wait_s = least_wait_s
        self._work: Callable[[Query], Coroutine[Any, Any, Answer]] = work
        self._encode: Callable[[Answer, bool, BodyFormat], bytes] = encode
        self._answered = metrics.answers.labels(route, 200, "ok")
        self._seconds = metrics.request_seconds.labels(route)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        arrived = time.monotonic()
        headers = dict(scope["headers"])
        request_id = headers.get(b"x-request-id", b"").decode("latin-1") or new_request_id()
        try:
            body, form = await self._read_body(scope, headers, receive)
            self._refuse_if_hopeless()
            content = read_content(body, form)
            request_id = request_id_of(content) or _checked(request_id)
            query, columns = parse_query(
                content,
                request_id,
                arrived,
                self._settings.timeout_ms / 1000,
                self._settings.max_candidates,
            )
            answer = await _while_connected(receive, self._work(query))
            self._count_degraded(answer)
            form = format_of(headers.get(b"accept", b"")) or form
            await _send(send, self._encode(answer, columns, form), form, request_id)
            self._answered.inc()
        except ServiceError as error:
            await problem(error, request_id)(scope, receive, send)
            self._metrics.answers.labels(self._route, error.status, error.code).inc()
        except ClientLeft:
            self._metrics.answers.labels(self._route, *_CLIENT_LEFT).inc()
        except Exception:
            log.exception("request %r failed", request_id)
            failure = ServiceError("the server failed; see its log")
            await problem(failure, request_id)(scope, receive, send)
            self._metrics.answers.labels(self._route, failure.status, failure.code).inc()
        finally:
            self._seconds.observe(time.monotonic() - arrived)

    def _refuse_if_hopeless(self) -> None:
        wait_ms = self._least_wait_s() * 1000
        if wait_ms > self._settings.timeout_ms:
            raise DeadlineExceeded(
                f"about {wait_ms:.0f} ms of work are waiting; the limit is "
                f"{self._settings.timeout_ms:.0f} ms"
            )

    async def _read_body(
        self, scope: Scope, headers: dict[bytes, bytes], receive: Receive
    ) -> tuple[bytes, BodyFormat]:
        if scope["method"] != "POST":
            raise MethodNotAllowed(f"{scope['path']} takes POST")
        media_type = headers.get(b"content-type", JSON.media_type)
        form = format_of(media_type)
        if form is None:
            raise UnsupportedMediaType(
                f"content-type {media_type.decode('latin-1')!r}; send application/json or "
                "application/msgpack"
            )
        encoding = headers.get(b"content-encoding", b"identity")
        if encoding.lower() != b"identity":
            raise UnsupportedMediaType(
                f"content-encoding {encoding.decode('latin-1')!r}; send the body as it is"
            )
        return await read_body(receive, self._settings.max_body_bytes), form

    def _count_degraded(self, answer: Scored | Ranked) -> None:
        scored = answer.scored if isinstance(answer, Ranked) else answer
        for reason in scored.degraded.reasons:
            self._metrics.degraded_answers.labels(reason).inc()


def _checked(request_id: str) -> str:
    if len(request_id) > MAX_REQUEST_ID:
        raise InvalidRequest.at("X-Request-ID", f"at most {MAX_REQUEST_ID} characters")
    return request_id


async def _send(send: Send, body: bytes, form: BodyFormat, request_id: str) -> None:
    headers = [
        (b"content-type", form.media_type),
        (b"content-length", str(len(body)).encode()),
        (b"x-request-id", header_text(request_id).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _while_connected(receive: Receive, work: Coroutine[Any, Any, Answer]) -> Answer:
    """The result of `work`, unless the client leaves first: then it is cancelled."""
    loop = asyncio.get_running_loop()
    watch = _Watch(receive, asyncio.current_task())
    timer = loop.call_later(_PATIENCE_S, watch.begin)
    try:
        return await work
    except asyncio.CancelledError:
        if not watch.client_left:
            raise
        raise ClientLeft from None
    finally:
        timer.cancel()
        watch.end()


class _Watch:
    """Cancels the answering task when its client leaves."""

    def __init__(self, receive: Receive, answering: asyncio.Task[Any] | None) -> None:
        self._receive = receive
        self._answering = answering
        self._watching: asyncio.Task[None] | None = None
        self.client_left = False

    def begin(self) -> None:
        self._watching = asyncio.ensure_future(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.client_left = True
        if self._answering is not None:
            self._answering.cancel()

    def end(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
