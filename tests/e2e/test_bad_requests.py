"""Each bad input of the contract: its status, its code, and the field it is about."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import Serve
from tests.e2e.asking import GOOD, JSON, MSGPACK, problem
from tests.e2e.bad_requests import GROUPS, IN_MSGPACK, Bad, cases, written
from tests.servers import Service


def check_answer(answer: httpx.Response, bad: Bad) -> None:
    """The answer must be the one that the contract has for this request."""
    content = problem(answer, bad.status, bad.code)
    locs = [error["loc"] for error in content["errors"]]
    if bad.status == 422:
        assert bad.loc in locs
        assert all(error["msg"] for error in content["errors"])
        assert content["detail"].startswith(locs[0])
    else:
        assert locs == []
    assert bad.says in answer.text, answer.text


@pytest.mark.parametrize("path", ["/rank", "/score"])
def test_the_good_request_that_all_are_made_of(service: Service, path: str) -> None:
    assert service.http.post(path, json=GOOD).status_code == 200


@pytest.mark.parametrize("bad", cases("JSON"))
def test_bad_request(service: Service, bad: Bad) -> None:
    check_answer(service.http.post("/rank", content=bad.body(), headers=JSON), bad)


@pytest.mark.parametrize("bad", cases("msgpack"))
def test_the_same_in_msgpack(service: Service, bad: Bad) -> None:
    check_answer(service.http.post("/rank", content=written(bad.change), headers=MSGPACK), bad)


@pytest.mark.parametrize(
    ("loc", "body"), [pytest.param(loc, body, id=name) for name, loc, body in IN_MSGPACK]
)
def test_what_only_msgpack_can_say(service: Service, loc: str, body: Any) -> None:
    content = body if isinstance(body, bytes) else written(body)
    answer = service.http.post("/rank", content=content, headers=MSGPACK)
    check_answer(answer, Bad("", loc))


def test_every_wrong_field_is_named_at_once(service: Service) -> None:
    body = {"user": {}, "candidates": {"ids": ["i1", 2.5]}, "top_k": 0, "colour": 1}
    content = problem(service.http.post("/rank", json=body), 422, "invalid_request")

    locs = {error["loc"] for error in content["errors"]}
    assert locs == {"user", "candidates.ids[1]", "top_k", "colour"}
    assert "3 more" in content["detail"]


def test_score_checks_as_rank_does(service: Service) -> None:
    for bad in [bads[at] for bads in GROUPS.values() for at in (0, -1)]:
        answer = service.http.post("/score", content=bad.body(), headers=JSON)
        problem(answer, bad.status, bad.code)


def test_the_request_id_of_a_bad_request_comes_back(service: Service) -> None:
    headers = {"X-Request-ID": "h-1"}
    bad = service.http.post("/rank", json=GOOD | {"top_k": 0}, headers=headers)
    assert problem(bad, 422, "invalid_request")["request_id"] == "h-1"
    for change, status, code in (
        ({"candidates": {"ids": []}}, 422, "invalid_request"),
        ({"candidates": {"ids": list(range(2001))}}, 413, "too_many_candidates"),
        ({"fusion": "nope"}, 422, "invalid_request"),
        ({"model": "nope"}, 404, "unknown_model"),
    ):
        body = GOOD | change | {"request_id": "r-1"}
        answer = service.http.post("/rank", json=body, headers=headers)
        assert problem(answer, status, code)["request_id"] == "r-1"
    for not_echoed in ("r" * 129, 5, None):
        answer = service.http.post("/rank", json={"request_id": not_echoed}, headers=headers)
        assert problem(answer, 422, "invalid_request")["request_id"] == "h-1"
    long = service.http.post("/rank", json=GOOD, headers={"X-Request-ID": "h" * 129})
    content = problem(long, 422, "invalid_request")
    assert content["errors"][0]["loc"] == "X-Request-ID"


def test_limits_are_settings(served_models: Path, serve: Serve) -> None:
    service = serve(served_models, max_candidates=3, max_body_bytes=1024)
    assert service.http.post("/rank", json=GOOD).status_code == 200

    four = GOOD | {"candidates": {"ids": [1, 2, 3, 4]}}
    content = problem(service.http.post("/rank", json=four), 413, "too_many_candidates")
    assert "4 candidates, at most 3" in content["detail"]

    def body(size: int) -> bytes:
        return json.dumps(GOOD).encode().ljust(size)

    assert service.http.post("/rank", content=body(1024), headers=JSON).status_code == 200
    for content_sent in (body(1025), iter([body(600), b" " * 600])):  # with a length; in chunks
        answer = service.http.post("/rank", content=content_sent, headers=JSON)
        assert "1024 bytes" in problem(answer, 413, "body_too_large")["detail"]
    assert service.http.post("/rank", json=GOOD).status_code == 200


def test_a_body_over_the_default_limit(service: Service) -> None:
    body = json.dumps(GOOD).encode().ljust((8 << 20) + 1)
    problem(service.http.post("/rank", content=body, headers=JSON), 413, "body_too_large")


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "application/xml", "json"]
)
def test_content_types_that_are_not_read(service: Service, content_type: str) -> None:
    headers = {"content-type": content_type}
    answer = service.http.post("/rank", content=json.dumps(GOOD), headers=headers)
    content = problem(answer, 415, "unsupported_media_type")
    assert content_type in content["detail"]
    assert "application/json" in content["detail"]


def test_a_compressed_body_is_not_read(service: Service) -> None:
    compressed = gzip.compress(json.dumps(GOOD).encode())
    answer = service.http.post(
        "/rank", content=compressed, headers=JSON | {"content-encoding": "gzip"}
    )
    content = problem(answer, 415, "unsupported_media_type")
    assert content["detail"] == "content-encoding 'gzip'; send the body as it is"


def test_content_types_that_are_json(service: Service) -> None:
    for headers in ({"content-type": "Application/JSON; charset=utf-8"}, {}):
        answer = service.http.post("/rank", content=json.dumps(GOOD), headers=headers)
        assert answer.status_code == 200


def test_a_deadline_that_cannot_be_met(service: Service) -> None:
    body = GOOD | {"timeout_ms": 0.001}
    problem(service.http.post("/rank", json=body), 504, "deadline_exceeded")


def test_unknown_paths_and_wrong_methods(service: Service) -> None:
    for method, path in (("GET", "/nope"), ("POST", "/rank/"), ("POST", "/rank/1")):
        problem(service.http.request(method, path), 404, "not_found")
    for method, path in (("GET", "/rank"), ("DELETE", "/score"), ("POST", "/models")):
        answer = service.http.request(method, path)
        problem(answer, 405, "method_not_allowed")
        assert answer.headers["allow"]
