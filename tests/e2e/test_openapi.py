"""Requests made up from the OpenAPI page, right ones and wrong ones: none may break the server."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import Case, GenerationMode
from schemathesis.specs.openapi import checks

from tests.servers import Service

CHECKS = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
FEATURES = {
    "user": ("age", "segment", "history"),
    "context": ("hour",),
    "candidates": ("item_id", "price", "categories"),
}
quick = settings(
    max_examples=100,
    deadline=None,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)


def as_generated(body: Any) -> None:
    """Leave a request as it is, but for a deadline that may rightly end in 504."""
    if isinstance(body, dict):
        body.pop("timeout_ms", None)


def aimed(body: Any) -> None:
    """Let a right request get to the values: a model that is there, features that it has, ids once.

    The values stay as they were made up.
    """
    as_generated(body)
    for name in ("model", "version", "fusion"):
        body.pop(name, None)
    body["user"].setdefault("id", "u5")
    rename(body["user"], "features", "user")
    rename(body, "context", "context")
    candidates = body["candidates"]
    if isinstance(candidates, list):
        for number, row in enumerate(candidates):
            row["id"] = number
            rename(row, "features", "candidates")
    else:
        ids = candidates["ids"] = list(range(len(candidates["ids"])))
        rename(candidates, "features", "candidates")
        columns = candidates.get("features", {})
        for name, column in columns.items():
            columns[name] = list(itertools.islice(itertools.cycle(column or [None]), len(ids)))


def rename(holder: dict[str, Any], field: str, entity: str) -> None:
    """Give the values of a mapping the names of features that there are."""
    if field in holder:
        holder[field] = dict(zip(FEATURES[entity], holder[field].values(), strict=False))


@pytest.fixture(scope="module")
def page(service: Service) -> Any:
    """What the service says of itself."""
    return schemathesis.openapi.from_url(f"{service.url}/openapi.json")


KINDS: Mapping[str, tuple[GenerationMode, Callable[[Any], None], set[int]]] = {
    "right": (GenerationMode.POSITIVE, as_generated, {200, 422}),
    "right and aimed": (GenerationMode.POSITIVE, aimed, {200, 422}),
    "wrong": (GenerationMode.NEGATIVE, as_generated, {422}),
}
"""How requests are made, what is done to them, and which statuses at least must come."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", ["/rank", "/score"])
def test_ranking_never_breaks(page: Any, path: str, kind: str) -> None:
    mode, change, wanted = KINDS[kind]
    statuses: Counter[int] = Counter()

    @seed(1)
    @quick
    @given(case=page[path]["POST"].as_strategy(generation_mode=mode))
    def ask(case: Case[Any]) -> None:
        change(case.body)
        response = case.call()
        statuses[response.status_code] += 1
        case.validate_response(response, checks=CHECKS)

    ask()
    assert wanted <= set(statuses)


@pytest.mark.parametrize("path", ["/models", "/healthz", "/readyz", "/metrics"])
def test_the_rest_answers_as_it_says(page: Any, path: str) -> None:
    case = page[path]["GET"].Case()
    response = case.call()
    assert response.status_code == 200
    case.validate_response(response, checks=CHECKS)
