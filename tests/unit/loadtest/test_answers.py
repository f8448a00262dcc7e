"""Answers: what a load test takes for right, and every way to be wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from loadtest.answers import Answer, WrongAnswer, check
from loadtest.samples import Asked, Format

TASKS = ("click", "like")


def asked(answer_format: Format) -> Asked:
    """A request for three items."""
    return Asked(b"{}", "r-1", ["a", 2, "c"], "shop", TASKS, answer_format)


def right(answer_format: Format) -> dict[str, Any]:
    """A right answer to it."""
    ids: list[str | int] = [2, "c", "a"]
    scores, tasks = [0.9, 0.5, 0.5], {"click": [0.3, 0.2, 0.1], "like": [1, 0.5, 0.25]}
    common = {
        "request_id": "r-1",
        "model": {"name": "shop", "version": 7},
        "degraded": None,
        "timing_ms": {"total": 4.5},
    }
    if answer_format == "columns":
        return {**common, "ids": ids, "scores": scores, "tasks": tasks}
    items = [
        {"id": ids[row], "score": scores[row], "tasks": {name: tasks[name][row] for name in tasks}}
        for row in range(3)
    ]
    return {**common, "items": items}


@pytest.mark.parametrize("answer_format", ["rows", "columns"])
def test_a_right_answer_is_read(answer_format: Format) -> None:
    body = orjson.dumps(right(answer_format))

    assert check(200, body, asked(answer_format)) == Answer(7, 4.5, ())


@pytest.mark.parametrize(
    ("reasons", "read"),
    [
        (["redis_timeout", "item_defaulted"], ("redis_timeout", "item_defaulted")),
        ([], ("unnamed",)),
    ],
)
def test_a_degraded_answer_is_right_and_says_why(reasons: list[str], read: tuple[str, ...]) -> None:
    answer = right("rows") | {"degraded": {"features": {}, "reasons": reasons}}

    assert check(200, orjson.dumps(answer), asked("rows")).degraded == read


COLUMNS: list[tuple[str, Callable[[dict[str, Any]], Any]]] = [
    ("another request", lambda a: a.update(request_id="r-2")),
    ("another model", lambda a: a["model"].update(name="news")),
    ("2 items of 3", lambda a: (a["ids"].pop(), a["scores"].pop())),
    ("3 items of 3", lambda a: a["scores"].pop()),
    ("not the items", lambda a: a.update(ids=[2, "c", "c"])),
    ("not the items", lambda a: a.update(ids=["2", "c", "a"])),
    ("not best first", lambda a: a["scores"].reverse()),
    ("not best first", lambda a: a.update(scores=[0.9, None, 0.5])),
    ("every item: like", lambda a: a["tasks"].pop("like")),
    ("every item: like", lambda a: a["tasks"]["like"].pop()),
    ("every item: click", lambda a: a["tasks"].update(click=[0.3, None, 0.1])),
    ("every item: click", lambda a: a["tasks"].update(click=[0.3, "0.2", 0.1])),
    ("not as documented", lambda a: a.pop("timing_ms")),
    ("not as documented", lambda a: a.pop("degraded")),
    ("not as documented", lambda a: a.update(tasks=None)),
]
ROWS: list[tuple[str, Callable[[dict[str, Any]], Any]]] = [
    ("2 items of 3", lambda a: a["items"].pop()),
    ("not as documented", lambda a: a.update(items=[])),
    ("not as documented", lambda a: a["items"][1].pop("score")),
    ("not as documented", lambda a: a["items"][2]["tasks"].pop("like")),
    ("every item: like", lambda a: [item["tasks"].pop("like") for item in a["items"]]),
    ("not best first", lambda a: a["items"].reverse()),
]


@pytest.mark.parametrize(
    ("answer_format", "message", "spoil"),
    [("columns", *case) for case in COLUMNS] + [("rows", *case) for case in ROWS],
)
def test_a_wrong_answer_is_found(
    answer_format: Format, message: str, spoil: Callable[[dict[str, Any]], Any]
) -> None:
    answer = right(answer_format)
    spoil(answer)

    with pytest.raises(WrongAnswer, match=message):
        check(200, orjson.dumps(answer), asked(answer_format))


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (429, b'{"code": "queue_full", "detail": "no room"}', "status 429: queue_full: no room"),
        (500, b"{}", "status 500, not as documented"),
        (502, b"<html>", "status 502, and the body is not JSON"),
        (200, b"", "the body is not JSON"),
        (200, b"[]", "not as documented"),
        (200, b"null", "not as documented"),
        (404, b'"no"', "status 404, not as documented"),
    ],
)
def test_what_is_no_answer_is_found(status: int, body: bytes, message: str) -> None:
    with pytest.raises(WrongAnswer, match=message):
        check(status, body, asked("rows"))


def test_a_right_body_with_a_wrong_status_is_wrong() -> None:
    with pytest.raises(WrongAnswer, match="status 201"):
        check(201, orjson.dumps(right("rows")), asked("rows"))
