"""Admin calls that are not let through: each says what is wrong with it, and nothing changes."""

from __future__ import annotations

import fcntl
import http.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.e2e.asking import problem
from tests.e2e.damages import bring, without_the_task
from tests.published import MODEL, ModelsDirectory
from tests.servers import WAIT_S, Service, eventually

HEADERS = {"Authorization": "Bearer tok"}
JSON = HEADERS | {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def models(trained_models: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelsDirectory:
    return ModelsDirectory.create(tmp_path_factory.mktemp("admin") / "models", trained_models)


@pytest.fixture(scope="module")
def guarded(models: ModelsDirectory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    settings = {"admin_token": "tok", "max_body_bytes": 100_000}
    running = Service(models.path, tmp_path_factory.mktemp("serve"), settings)
    try:
        yield running.wait_ready()
    finally:
        running.stop()


def post(service: Service, call: str, **sent: Any) -> Any:
    return service.http.post(f"/admin/models/{MODEL}/{call}", **({"headers": JSON} | sent))


@pytest.mark.parametrize(
    ("call", "sent", "loc"),
    [
        ("canary", {"canary": {"version": 2, "percent": True}}, "body.canary.percent"),
        ("canary", {"canary": {"version": 2, "percent": "50"}}, "body.canary.percent"),
        ("shadow", {"shadow": {"version": 2, "sample": True}}, "body.shadow.sample"),
        ("limits", {"limits": {"max_candidates": True}}, "body.limits.max_candidates"),
        ("limits", {"limits": {"max_candidates": 10**40}}, "body.limits.max_candidates"),
        ("promote", {"require": {"min_requests": 10**40}}, "body.require.min_requests"),
    ],
)
def test_a_value_of_another_type_is_not_taken_for_a_number(
    guarded: Service, call: str, sent: dict[str, Any], loc: str
) -> None:
    content = problem(post(guarded, call, json=sent), 422, "invalid_request")
    assert content["errors"][0]["loc"] == loc


def test_a_body_that_is_not_said_to_be_json(guarded: Service) -> None:
    for sent in ("text/plain", "application/x-www-form-urlencoded"):
        headers = HEADERS | {"Content-Type": sent}
        answer = post(guarded, "deploy", content=b'{"version": 1}', headers=headers)
        content = problem(answer, 415, "unsupported_media_type")
        assert content["detail"] == f"content-type {sent!r}; send application/json"


def test_two_tokens_are_one_too_many(guarded: Service) -> None:
    headers = [("Authorization", "Bearer tok"), ("Authorization", "Bearer other")]
    for given in (headers, headers[::-1]):
        problem(post(guarded, "deploy", json={"version": 1}, headers=given), 401, "unauthorized")


@pytest.mark.parametrize("headers", [{}, JSON])
def test_a_body_without_end_is_not_read(guarded: Service, headers: dict[str, str]) -> None:
    """Whoever sends it: a stranger's would fill the memory just as well."""
    address = urlsplit(guarded.url)
    assert address.hostname is not None
    client = http.client.HTTPConnection(address.hostname, address.port, timeout=WAIT_S)
    client.putrequest("POST", f"/admin/models/{MODEL}/deploy")
    for name, value in {"Transfer-Encoding": "chunked", **headers}.items():
        client.putheader(name, value)
    client.endheaders()
    for _ in range(101):
        client.send(b"400\r\n" + b" " * 1024 + b"\r\n")
    answer = client.getresponse()
    assert answer.status == 413
    assert b"body_too_large" in answer.read()
    client.close()


def test_a_version_that_is_not_published(guarded: Service) -> None:
    content = problem(post(guarded, "deploy", json={"version": 99}), 409, "conflict")
    assert content["detail"].startswith("version 99 is not published; published: 1")


def test_a_version_that_the_gate_has_refused(guarded: Service, models: ModelsDirectory) -> None:
    bad = bring(models, without_the_task)
    guarded.expect_in_log(f"version {bad} refused: fusion_invalid")
    eventually(lambda: guarded.version(MODEL, bad)["state"] == "refused")
    calls = [
        ("deploy", {"version": bad}),
        ("canary", {"canary": {"version": bad, "percent": 5}}),
        ("shadow", {"shadow": {"version": bad}}),
        ("pin", {"versions": [1, bad]}),
    ]
    for call, sent in calls:
        content = problem(post(guarded, call, json=sent), 409, "conflict")
        says = f"{MODEL}: version {bad} was refused: fusion_invalid: default.yaml"
        assert content["detail"].startswith(says)
    assert not (models.model / "deployment.json").exists()


def test_a_lock_that_another_process_holds(guarded: Service, models: ModelsDirectory) -> None:
    with (models.model / ".deployment.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        content = problem(post(guarded, "deploy", json={"version": 1}), 409, "conflict")
        assert "another process has held this lock for 5 s" in content["detail"]
