"""SIGKILL of one worker in the middle of a swap: the deployment file decides, for all of them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from tests.conftest import Serve
from tests.e2e.asking import GOOD
from tests.published import MODEL, ModelsDirectory
from tests.servers import WAIT_S, Service, eventually

TOKEN = "a token"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
POLL_MS = 1500
"""Who hears of a change by /admin follows at once, the others look this often."""


def deploy(service: Service, version: int) -> None:
    url = f"/admin/models/{MODEL}/deploy"
    answer = service.http.post(url, json={"version": version}, headers=HEADERS)
    assert answer.status_code == 200, answer.text


def parts(service: Service) -> Mapping[int, Mapping[str, Any]]:
    """What each worker says that it serves, by index."""
    return {each["worker"]: each for each in service.model(MODEL)["workers"]}


def in_the_middle_of_a_swap(service: Service) -> int:
    """Swap until one worker has followed and the other has not; returns the new version."""
    for number in range(20):
        version = 2 - number % 2
        deploy(service, version)
        if first_that_followed(service, version) == {True, False}:
            return version
    raise AssertionError("both workers followed at the same time, every time")


def first_that_followed(service: Service, version: int) -> set[bool]:
    """Whether the workers serve the version, once any of them does."""

    def seen() -> set[bool]:
        found = {each["stable"] == version for each in parts(service).values()}
        return found if True in found else set()

    return eventually(seen)


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
    service = serve(models_dir.path, workers=2, admin_token=TOKEN, poll_interval_ms=POLL_MS)
    deploy(service, 1)
    eventually(lambda: service.model(MODEL)["converged"])

    version = in_the_middle_of_a_swap(service)
    victim = next(
        each for each in parts(service).values() if (each["stable"] == version) is followed
    )
    assert_restarts(service, victim)
    assert_all_serve(service, version)


def test_killed_at_any_moment_of_a_swap(models_dir: ModelsDirectory, serve: Serve) -> None:
    models_dir.publish(2)
    service = serve(models_dir.path, workers=2, admin_token=TOKEN)
    deploy(service, 1)
    for number in range(3):
        eventually(lambda: service.model(MODEL)["converged"])
        version, victim = 2 - number % 2, parts(service)[number % 2]
        deploy(service, version)
        time.sleep(0.03 * number)  # while it looks, loads, or has just loaded
        assert_restarts(service, victim)
        assert_all_serve(service, version)


def assert_restarts(service: Service, victim: Mapping[str, Any]) -> None:
    """Kill a worker; requests go on, and another takes its place."""
    again = f"worker {victim['worker']} serves again"
    before = service.log().count(again)
    os.kill(victim["pid"], signal.SIGKILL)
    service.expect_in_log(f"worker {victim['worker']} was ended by SIGKILL")
    assert answered_by(service) <= {1, 2}
    eventually(lambda: service.log().count(again) > before)


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
