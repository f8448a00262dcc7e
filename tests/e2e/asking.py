"""What end-to-end tests send, and how they read what comes back."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np

from tests.published import TASKS, Array

JSON = {"content-type": "application/json"}
MSGPACK = {"content-type": "application/msgpack"}
GOOD: dict[str, Any] = {"user": {"id": "u5"}, "candidates": {"ids": ["i1", "i2"]}}
"""The smallest request that is answered."""

USER = "u5"
IDS = [f"i{number}" for number in (7, 3, 150, 42, 0, 199, 88)]
CONTEXT = {"hour": 20}
REQUEST: dict[str, Any] = {"user": {"id": USER}, "context": CONTEXT, "candidates": {"ids": IDS}}
"""A request that is answered without a default."""


def tasks_of(answer: Any) -> Array:
    """Task scores [N, T] of an answer in rows."""
    return np.array([[item["tasks"][task] for task in TASKS] for item in answer["items"]])


def scores_of(answer: Any) -> Array:
    """Fused scores [N] of an answer in rows."""
    return np.array([item["score"] for item in answer["items"]])


def ids_of(answer: Any) -> list[Any]:
    """The ids of an answer in rows, in its order."""
    return [item["id"] for item in answer["items"]]


def best_first(scores: Array) -> Array:
    """Positions, best first; ties in the order of the request."""
    return np.argsort(-scores, kind="stable")


def problem(answer: httpx.Response, status: int, code: str) -> Any:
    """The content of an answer that must be a problem of RFC 9457, of this status and code."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    content = answer.json()
    assert set(content) == {"type", "title", "status", "code", "detail", "errors", "request_id"}
    assert (content["type"], content["status"]) == ("about:blank", status)
    assert content["code"] == code
    assert content["title"]
    assert content["detail"]
    assert content["request_id"] == answer.headers["X-Request-ID"]
    return content
