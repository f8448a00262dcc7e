"""Problems: every error becomes application/problem+json (RFC 9457), here and nowhere else."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from urllib.parse import quote

import orjson
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from service.errors import (
    FieldError,
    InvalidRequest,
    MethodNotAllowed,
    QueueFull,
    ServiceError,
    Unauthorized,
)
from service.queries import new_request_id

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
REQUEST_ID = "X-Request-ID"


async def on_error(request: Request, error: Exception) -> Response:
    """The handler of what no route caught: unknown paths, wrong methods, surprises."""
    request_id = request.headers.get(REQUEST_ID) or new_request_id()
    if isinstance(error, ServiceError):
        return problem(error, request_id)
    if isinstance(error, RequestValidationError):
        return problem(_invalid(error), request_id)
    if isinstance(error, HTTPException):
        status = HTTPStatus(error.status_code)
        answer = ServiceError(str(error.detail))
        answer.status, answer.code, answer.title = status.value, status.name.lower(), status.phrase
        return problem(answer, request_id, headers=error.headers)
    log.error("request %r failed", request_id, exc_info=error)
    return problem(ServiceError("the server failed; see its log"), request_id)


def header_text(text: str) -> str:
    """Text for a header: what is not printable ASCII is percent-encoded, line breaks above all."""
    return text if text.isascii() and text.isprintable() else quote(text, errors="replace")


def problem(
    error: ServiceError,
    request_id: str,
    fields: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """An error as an answer; `fields` are those that are wrong."""
    if isinstance(error, InvalidRequest):
        fields = error.errors
    all_headers = {REQUEST_ID: header_text(request_id), **(headers or {})}
    if isinstance(error, MethodNotAllowed):
        all_headers["Allow"] = "POST"
    if isinstance(error, Unauthorized):
        all_headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, QueueFull):
        all_headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    content = {
        "type": "about:blank",
        "title": error.title,
        "status": error.status,
        "code": error.code,
        "detail": error.detail,
        "errors": [{"loc": field.loc, "msg": field.msg} for field in fields],
        "request_id": request_id,
    }
    return Response(orjson.dumps(content), error.status, all_headers, MEDIA_TYPE)


def _invalid(error: RequestValidationError) -> InvalidRequest:
    """What FastAPI found wrong with a request, each at its path: body, query or path first."""
    return InvalidRequest(
        [FieldError(".".join(map(str, each["loc"])), each["msg"]) for each in error.errors()]
    )
