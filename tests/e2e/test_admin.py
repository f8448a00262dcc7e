"""Who may call /admin: those who know the token, and nobody when there is none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.asking import problem
from tests.servers import Service

TOKEN = "correct horse battery staple"


@pytest.fixture(scope="module")
def guarded(served_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    settings = {"admin_token": TOKEN}
    running = Service(served_models, tmp_path_factory.mktemp("serve"), settings)
    try:
        yield running.wait_ready()
    finally:
        running.stop()


def test_without_a_token_admin_is_off_and_the_setting_is_named(service: Service) -> None:
    answer = service.http.get("/admin/anything", headers={"Authorization": "Bearer token"})

    content = problem(answer, 403, "admin_disabled")
    assert "MULTIRANK_ADMIN_TOKEN" in content["detail"]


@pytest.mark.parametrize(
    "given", [None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x"]
)
def test_another_token_is_not_let_in(guarded: Service, given: str | None) -> None:
    headers = {} if given is None else {"Authorization": given}
    guarded.allow_in_log("admin: a wrong token from 127.0.0.1")
    answer = guarded.http.get("/admin/anything", headers=headers)

    problem(answer, 401, "unauthorized")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert TOKEN not in answer.text


def test_the_right_token_is_let_in_and_unknown_calls_are_named(guarded: Service) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    content = problem(guarded.http.get("/admin/anything", headers=headers), 404, "not_found")

    assert "/admin/anything" in content["detail"]
    assert TOKEN not in guarded.log()
