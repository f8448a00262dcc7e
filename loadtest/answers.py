"""Whether an answer of `/rank` is right: a load test that counts wrong answers as good is none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import orjson

from loadtest.samples import Asked


class WrongAnswer(Exception):
    """The answer is not one to this request. Messages name no ids, so that they can be counted."""


@dataclass(frozen=True)
class Answer:
    """What is worth knowing of a right answer.

    Attributes:
        version: the model version that gave it.
        service_ms: what the service says it took, from arrival to the ranked list.
        degraded: why features were missing, or nothing.
    """

    version: int
    service_ms: float
    degraded: tuple[str, ...]


def check(status: int, body: bytes, asked: Asked) -> Answer:
    """Check an answer against its request.

    Raises:
        WrongAnswer: another status than 200, another request's answer, items too few, too many or
            not asked for, not best first, or an item without a finite score for every task.
    """
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise WrongAnswer(f"status {status}, and the body is not JSON") from error
    try:
        if status != 200:
            raise WrongAnswer(f"status {status}: {answer['code']}: {answer['detail']}")
        return _check(answer, asked)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        kind = type(error).__name__
        raise WrongAnswer(f"status {status}, not as documented: {kind}: {error}") from error


def _check(answer: Any, asked: Asked) -> Answer:
    if answer["request_id"] != asked.request_id:
        raise WrongAnswer("another request's answer")
    if answer["model"]["name"] != asked.model:
        raise WrongAnswer(f"another model's answer: {answer['model']['name']}")
    if asked.format == "columns":
        ids, scores, tasks = answer["ids"], answer["scores"], answer["tasks"]
    else:
        items = answer["items"]
        ids, scores = [item["id"] for item in items], [item["score"] for item in items]
        tasks = {name: [item["tasks"][name] for item in items] for name in items[0]["tasks"]}
    if len(ids) != len(asked.candidates) or len(scores) != len(ids):
        raise WrongAnswer(f"{len(ids)} items of {len(asked.candidates)}")
    if set(ids) != set(asked.candidates):
        raise WrongAnswer("not the items that were asked for")
    if not _all_numbers(scores) or any(better < worse for better, worse in pairwise(scores)):
        raise WrongAnswer("not best first")
    for name in asked.tasks:
        if len(tasks.get(name, ())) != len(ids) or not _all_numbers(tasks[name]):
            raise WrongAnswer(f"no score for every item: {name}")
    degraded = answer["degraded"]
    return Answer(
        version=int(answer["model"]["version"]),
        service_ms=float(answer["timing_ms"]["total"]),
        degraded=() if degraded is None else _reasons(degraded["reasons"]),
    )


def _reasons(reasons: Sequence[str]) -> tuple[str, ...]:
    return tuple(reasons) or ("unnamed",)


def _all_numbers(values: Iterable[object]) -> bool:
    return set(map(type, values)) <= {float, int}
