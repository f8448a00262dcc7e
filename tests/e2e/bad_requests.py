"""Bad requests, each with the field that it is about, and what the answer must be."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import ormsgpack
import pytest

from tests.e2e.asking import GOOD

NAN, INFINITY = float("nan"), float("inf")
TWO_ROWS = [{"id": "i1"}, {"id": "i2"}]


@dataclass(frozen=True)
class Bad:
    """A bad request: what is changed of a good one, or the whole body as text."""

    name: str
    loc: str
    change: dict[str, Any] | None = None
    text: str | None = None
    says: str = ""
    status: int = 422
    code: str = "invalid_request"

    def body(self) -> str:
        return self.text if self.text is not None else json.dumps(GOOD | (self.change or {}))


def columns(**features: Any) -> dict[str, Any]:
    """The good candidates, with feature columns."""
    return {"candidates": {"ids": ["i1", "i2"], "features": features}}


def with_price(literal: str) -> str:
    """A body with a price that Python's json module might not write."""
    return json.dumps(GOOD | columns(price=[1.5, "PRICE"])).replace('"PRICE"', literal)


CANDIDATES = [
    Bad("none", "candidates.ids", {"candidates": {"ids": []}}, says="at least one id"),
    Bad("none, as rows", "candidates.ids", {"candidates": []}, says="at least one id"),
    Bad("left out", "candidates", text='{"user": {"id": "u5"}}', says="required"),
    Bad("null", "candidates", {"candidates": None}),
    Bad("a string", "candidates", {"candidates": "i1"}),
    Bad("no ids", "candidates.ids", {"candidates": {"features": {}}}, says="required"),
    Bad("twice", "candidates.ids", {"candidates": {"ids": ["i1", "i2", "i1"]}}, says="i1"),
    Bad("twice, as rows", "candidates.ids", {"candidates": [*TWO_ROWS, {"id": "i2"}]}, says="i2"),
    Bad("twice, as 7 and '7'", "candidates.ids", {"candidates": {"ids": [7, "7"]}}, says="7"),
    Bad("a fraction", "candidates.ids[1]", {"candidates": {"ids": ["i1", 2.5]}}),
    Bad("a boolean", "candidates.ids[0]", {"candidates": {"ids": [True]}}),
    Bad("a null", "candidates.ids[1]", {"candidates": {"ids": ["i1", None]}}),
    Bad("an empty string", "candidates.ids[0]", {"candidates": {"ids": [""]}}),
    Bad("past 64 bits", "candidates.ids[1]", {"candidates": {"ids": [2**64 - 1, 2**64]}}),
    Bad("below 64 bits", "candidates.ids[0]", {"candidates": {"ids": [-(2**63) - 1]}}),
    Bad("too long", "candidates.ids[1]", {"candidates": {"ids": ["i1", "i" * 513]}}),
    Bad("a row without id", "candidates[1].id", {"candidates": [{"id": "i1"}, {}]}),
    Bad("a row with more", "candidates[0].price", {"candidates": [{"id": "i1", "price": 1}]}),
    Bad("a row with a list as id", "candidates[0].id", {"candidates": [{"id": ["i1"]}]}),
]
FEATURES = [
    Bad("short column", "candidates.features.price", columns(price=[1.5]), says="1 values for 2"),
    Bad("long column", "candidates.features.price", columns(price=[1, 2, 3]), says="3 values"),
    Bad("empty column", "candidates.features.price", columns(price=[]), says="0 values"),
    Bad("no column", "candidates.features.price", columns(price=1.5)),
    Bad("unknown in columns", "candidates.features.prize", columns(prize=[1, 2]), says="price"),
    Bad(
        "unknown in rows",
        "candidates.features.prize",
        {"candidates": [{"id": "i1", "features": {"prize": 1}}]},
        says="price",
    ),
    Bad("unknown of the user", "user.features.agee", {"user": {"features": {"agee": 1}}}),
    Bad("unknown of the context", "context.minute", {"context": {"minute": 1}}, says="hour"),
    Bad("text for a number", "candidates.features.price[1]", columns(price=[1, "2"]), says="str"),
    Bad("truth for a number", "candidates.features.price[0]", columns(price=[True, 2])),
    Bad("list for a number", "candidates.features.price[0]", columns(price=[[1], 2])),
    Bad("number for a list", "candidates.features.categories[0]", columns(categories=[1, None])),
    Bad("fraction in a list", "candidates.features.categories[1]", columns(categories=[[], [1.5]])),
    Bad("object for an id", "user.features.segment", {"user": {"features": {"segment": {}}}}),
    Bad("text for the context", "context.hour", {"context": {"hour": "noon"}}),
    Bad("past float32", "candidates.features.price[0]", columns(price=[1e39, 2]), says="finite"),
    Bad("NaN", "body", text=with_price("NaN"), says="JSON"),
    Bad("Infinity", "body", text=with_price("Infinity"), says="JSON"),
    Bad("-Infinity", "body", text=with_price("-Infinity"), says="JSON"),
    Bad("1e999", "body", text=with_price("1e999"), says="JSON"),
    Bad("huge integer", "body", text=with_price("9" * 400), says="JSON"),
]
REST = [
    Bad("no user", "user", text='{"candidates": {"ids": ["i1"]}}', says="required"),
    Bad("user with nothing", "user", {"user": {}}, says="id, or features"),
    Bad("user as text", "user", {"user": "u5"}),
    Bad("user id a list", "user.id", {"user": {"id": ["u5"]}}),
    Bad("unknown field", "topk", {"topk": 3}, says="no such field"),
    Bad("unknown field inside", "user.name", {"user": {"id": "u5", "name": "x"}}),
    Bad("top_k zero", "top_k", {"top_k": 0}),
    Bad("top_k text", "top_k", {"top_k": "3"}),
    Bad("top_k fraction", "top_k", {"top_k": 1.5}),
    Bad("top_k past 64 bits", "top_k", {"top_k": 2**63}),
    Bad("timeout zero", "timeout_ms", {"timeout_ms": 0}),
    Bad("timeout NaN", "body", text=json.dumps(GOOD | {"timeout_ms": NAN})),
    Bad("timeout infinite", "body", text=json.dumps(GOOD | {"timeout_ms": INFINITY})),
    Bad("format", "format", {"format": "table"}),
    Bad("explain", "explain", {"explain": "yes"}),
    Bad("context as list", "context", {"context": [1]}),
    Bad("request_id empty", "request_id", {"request_id": ""}),
    Bad("request_id long", "request_id", {"request_id": "r" * 129}),
    Bad("request_id number", "request_id", {"request_id": 7}),
    Bad("version text", "version", {"version": "1"}),
    Bad("version zero", "version", {"version": 0}),
    Bad("unknown fusion", "fusion", {"fusion": "nope"}, says="default"),
    Bad("unknown fusion's name", "fusion", {"fusion": {"name": "nope"}}, says="default"),
    Bad("fusion a number", "fusion", {"fusion": 5}),
    Bad("unknown weight", "fusion.weights", {"fusion": {"weights": {"likes": 1}}}, says="likes"),
    Bad("weight too large", "fusion.weights", {"fusion": {"weights": {"like_weight": 11}}}),
    Bad("weight text", "fusion.weights.like_weight", {"fusion": {"weights": {"like_weight": "1"}}}),
    Bad("weight NaN", "body", text=json.dumps(GOOD | {"fusion": {"weights": {"w": NAN}}})),
    Bad("formula", "fusion.formula", {"fusion": {"formula": "click"}}, says="not allowed"),
    Bad("name and formula", "fusion", {"fusion": {"name": "default", "formula": "click"}}),
]
NOT_JSON = [
    Bad("broken", "body", text='{"user": {"id": ', says="JSON"),
    Bad("empty", "body", text="", says="JSON"),
    Bad("two values", "body", text="{} {}", says="JSON"),
    Bad("a list", "body", text="[]"),
    Bad("null", "body", text="null"),
    Bad("too deep", "body", text='{"context": {"hour": ' + "[" * 5000, says="JSON"),
]
ELSEWHERE = [
    Bad("model", "", {"model": "nope"}, says="synthetic", status=404, code="unknown_model"),
    Bad("version", "", {"version": 99}, says="loaded: 1", status=404, code="unknown_model"),
    Bad(
        "candidates",
        "",
        {"candidates": {"ids": list(range(2001))}},
        says="2001 candidates, at most 2000",
        status=413,
        code="too_many_candidates",
    ),
    Bad(
        "candidates as rows",
        "",
        {"candidates": [{"id": number} for number in range(2001)]},
        says="2001 candidates, at most 2000",
        status=413,
        code="too_many_candidates",
    ),
]


GROUPS = {
    "candidates": CANDIDATES,
    "features": FEATURES,
    "rest": REST,
    "not JSON": NOT_JSON,
    "unknown or too many": ELSEWHERE,
}
IN_MSGPACK: list[tuple[str, str, Any]] = [
    ("not msgpack", "body", b"\xc1"),
    ("cut short", "body", ormsgpack.packb(GOOD)[:-1]),
    ("empty", "body", b""),
    ("a list", "body", b"\x90"),
    ("NaN", "candidates.features.price[1]", columns(price=[1, NAN])),
    ("infinity", "candidates.features.price[1]", columns(price=[1, -INFINITY])),
    ("NaN in the context", "context.hour", {"context": {"hour": NAN}}),
    ("NaN as timeout", "timeout_ms", {"timeout_ms": NAN}),
    ("NaN as weight", "fusion.weights.like_weight", {"fusion": {"weights": {"like_weight": NAN}}}),
    ("bytes as id", "candidates.ids[0]", {"candidates": {"ids": [b"i1"]}}),
    ("bytes as user", "user.id", {"user": {"id": b"u5"}}),
    ("bytes as a feature", "user.features.segment", {"user": {"features": {"segment": b"s1"}}}),
    ("NaN as id", "candidates.ids[1]", {"candidates": {"ids": ["i1", NAN]}}),
]
"""What JSON cannot say: a name, the field it is about, and a change or a whole body."""


def written(change: dict[str, Any] | None) -> bytes | None:
    """A request as msgpack, if msgpack can say it."""
    try:
        return None if change is None else ormsgpack.packb(GOOD | change)
    except ormsgpack.MsgpackEncodeError:
        return None


def cases(form: str) -> list[Any]:
    """Every bad request that can be written in a form, with a readable id."""
    return [
        pytest.param(bad, id=f"{group}: {bad.name}")
        for group, bads in GROUPS.items()
        for bad in bads
        if form == "JSON" or written(bad.change) is not None
    ]
