"""The process itself: its settings, its beginning, and an end without a lost request."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import orjson
import pytest

from tests.conftest import Serve
from tests.e2e.asking import GOOD, JSON, REQUEST
from tests.published import MODEL
from tests.servers import WAIT_S, environment, eventually

WRONG = {
    "port": "http",
    "redis_url": None,
    "row_budget": "0",
    "timeout_ms": "-1",
    "feature_failure": "ignore",
    "allow_request_formula": "perhaps",
    "log_level": "loud",
    "max_body_bytes": "12",
}


def serve_and_fail(**settings: object) -> subprocess.CompletedProcess[str]:
    """Run `multirank serve` with settings that must end it."""
    command = [sys.executable, "-m", "multirank", "serve"]
    return subprocess.run(
        command, env=environment(**settings), capture_output=True, text=True, timeout=WAIT_S
    )


@pytest.mark.parametrize("name", [name for name, value in WRONG.items() if value is not None])
def test_a_wrong_setting_ends_the_process_and_is_named(name: str) -> None:
    ended = serve_and_fail(**{name: WRONG[name]})

    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"MULTIRANK_{name.upper()}: ")
    assert f"got {WRONG[name]!r}" in line


def test_all_wrong_settings_are_named_at_once() -> None:
    ended = serve_and_fail(port="70000", threads="0")

    assert ended.returncode == 2
    assert {line.split(":")[0] for line in ended.stderr.splitlines()} == {
        "MULTIRANK_PORT",
        "MULTIRANK_THREADS",
    }


def test_a_setting_that_does_not_exist_ends_the_process_and_is_named() -> None:
    ended = serve_and_fail(time_out_ms="100")

    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("MULTIRANK_TIME_OUT_MS: no such setting")
    assert "did you mean MULTIRANK_TIMEOUT_MS?" in line


def test_a_port_that_is_taken(served_models: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = serve_and_fail(models_dir=served_models, port=port)

    assert ended.returncode != 0
    assert str(port) in ended.stderr


def test_command_line_options_come_before_variables(served_models: Path, serve: Serve) -> None:
    service = serve(served_models, models_dir="/nowhere", port=1)

    assert service.rank(**GOOD)["model"]["version"] == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_an_asked_end_finishes_what_was_accepted(
    served_models: Path, serve: Serve, workers: int
) -> None:
    requests, candidates = 24, 10_000  # many: the last is not answered while the metrics are read
    service = serve(served_models, queue_rows=1_000_000, max_candidates=candidates, workers=workers)
    ids = [f"i{number}" for number in range(candidates)]
    body = orjson.dumps(REQUEST | {"candidates": {"ids": ids}, "explain": True})

    def ask() -> tuple[float, httpx.Response]:
        with httpx.Client(base_url=service.url, timeout=WAIT_S) as client:
            answer = client.post("/rank", content=body, headers=JSON)
            return time.monotonic(), answer

    def accepted() -> float:
        answered = {"route": "rank", "status": "200", "code": "ok"}
        return service.metric("multirank_leases", model=MODEL, version="1") + service.metric(
            "multirank_answers_total", **answered
        )

    with ThreadPoolExecutor(requests) as clients:
        asked = [clients.submit(ask) for _ in range(requests)]
        eventually(lambda: accepted() >= requests)
        ended_at = time.monotonic()
        service.ask_to_end()
        answers = [each.result() for each in asked]

    assert [answer.status_code for _, answer in answers] == [200] * requests
    assert all(len(answer.json()["items"]) == len(ids) for _, answer in answers)
    assert any(at > ended_at for at, _ in answers)
    service.process.wait(WAIT_S)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{service.url}/healthz")
    assert service.log().count("Finished server process") == workers
