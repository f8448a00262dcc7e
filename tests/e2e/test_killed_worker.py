"""SIGKILL of one worker in the middle of a swap: the deployment file decides, for all of them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import pytest

from tests.conftest import Serve
from tests.e2e.asking import GOOD
from tests.published import MODEL, ModelsDirectory
from tests.servers import WAIT_S, Service, eventually, multirank

TOKEN = "a token"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
LOOK_S = 0.5


def deploy(service: Service, version: int) -> None:
    url = f"/admin/models/{MODEL}/deploy"
    answer = service.http.post(url, json={"version": version}, headers=HEADERS)
    assert answer.status_code == 200, answer.text


def parts(service: Service) -> Mapping[int, Mapping[str, Any]]:
    """What each worker says that it serves, by index."""
    return {each["worker"]: each for each in service.model(MODEL)["workers"]}


@contextmanager
def one_follows_alone(
    service: Service, models: ModelsDirectory, version: int, other: int
) -> Iterator[None]:
    """A swap that worker `other`, which stands still for as long, has no part in."""
    standing = parts(service)[other]["pid"]
    os.kill(standing, signal.SIGSTOP)
    try:
        ended = multirank("deploy", MODEL, version, "--models", models.path)
        assert ended.returncode == 0, ended.stderr
        eventually(lambda: seen_by_one(service).get(1 - other) == version)
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(standing, signal.SIGCONT)


def seen_by_one(service: Service) -> Mapping[int, int]:
    """The stable version of each worker; none when the one was asked that stands still."""
    try:
        answer = httpx.get(f"{service.url}/models", timeout=LOOK_S)
    except httpx.TimeoutException:
        return {}
    (model,) = answer.json()["models"]
    return {each["worker"]: each["stable"] for each in model["workers"]}


def answered_by(service: Service, connections: int = 8) -> set[int]:
    """The versions that answer, on connections to both workers."""
    clients = [httpx.Client(base_url=service.url, timeout=WAIT_S) for _ in range(connections)]
    try:
        answers = [client.post("/rank", json=GOOD) for client in clients]
    finally:
        for client in clients:
            client.close()
    assert {each.status_code for each in answers} == {200}
    return {each.json()["model"]["version"] for each in answers}


@pytest.mark.parametrize("followed", [True, False])
def test_killed_before_or_after_it_has_followed(
    models_dir: ModelsDirectory, serve: Serve, followed: bool
) -> None:
    models_dir.publish(2)
    service = serve(models_dir.path, workers=2, admin_token=TOKEN)
    deploy(service, 1)
    eventually(lambda: service.model(MODEL)["converged"])

    victim = parts(service)[0]
    with one_follows_alone(service, models_dir, 2, other=1 if followed else 0):
        os.kill(victim["pid"], signal.SIGKILL)
    assert_restarts(service, victim)
    assert_all_serve(service, 2)


def test_killed_at_any_moment_of_a_swap(models_dir: ModelsDirectory, serve: Serve) -> None:
    models_dir.publish(2)
    service = serve(models_dir.path, workers=2, admin_token=TOKEN)
    deploy(service, 1)
    for number in range(3):
        eventually(lambda: service.model(MODEL)["converged"])
        version, victim = 2 - number % 2, parts(service)[number % 2]
        deploy(service, version)
        time.sleep(0.03 * number)  # while it looks, loads, or has just loaded
        os.kill(victim["pid"], signal.SIGKILL)
        assert_restarts(service, victim)
        assert_all_serve(service, version)


def assert_restarts(service: Service, victim: Mapping[str, Any]) -> None:
    """A worker was killed: requests go on, and another has taken its place."""
    service.expect_in_log(f"worker {victim['worker']} was ended by SIGKILL")
    assert answered_by(service) <= {1, 2}

    def another() -> bool:
        now = parts(service).get(victim["worker"], victim)
        return bool(now["pid"] != victim["pid"])

    eventually(another)


def assert_all_serve(service: Service, version: int) -> None:
    """Every worker serves what the file says, and nothing else is left."""

    def all_agree() -> bool:
        model = service.model(MODEL)
        stable = [(each["stable"], each["stale"]) for each in model["workers"]]
        return bool(model["converged"]) and stable == [(version, False)] * 2

    eventually(all_agree)
    assert answered_by(service) == {version}
    state = {"model": MODEL, "state": "ready"}
    assert service.metric("multirank_version_state", version=str(version), **state) == 2
    other = str(3 - version)
    eventually(lambda: service.metric("multirank_version_state", version=other, **state) == 0)
