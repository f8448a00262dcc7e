"""`python -m loadtest.run`: the whole way, with a real service and real locust users."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.servers import Redis, environment


@pytest.fixture(scope="module")
def models(trained_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory to serve: services leave a history of formulas in it."""
    return Path(shutil.copytree(trained_models, tmp_path_factory.mktemp("loadtest") / "models"))


def start(models: Path, *options: str, **settings: object) -> subprocess.Popen[str]:
    """Start a load test, in a process group of its own."""
    command = [sys.executable, "-m", "loadtest.run", "--models", str(models), *options]
    patient = {"timeout_ms": 30_000, "feature_timeout_ms": 20_000}
    return subprocess.Popen(
        command,
        env=environment(**patient | settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Wait for its end; returns stdout and stderr. Nothing that it started is left then."""
    try:
        output, errors = process.communicate(timeout=90)
    finally:
        left = _killed(process.pid)
        process.wait()
    assert not left
    return output, errors


def _killed(group: int) -> bool:
    """Kill what is left of a process group; whether there was anything."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def result_of(output: str) -> Any:
    """The JSON line."""
    return json.loads(output.splitlines()[-1])


def test_a_healthy_service_is_measured(models: Path) -> None:
    process = start(models, "--seconds", "3", "--users", "3", "--candidates", "50")
    output, errors = finish(process)

    assert process.returncode == 0, errors + output
    result = result_of(output)
    assert result["model"] == "synthetic"
    assert result["failures"] == 0
    assert result["degraded"] == 0, result["degraded_reasons"]
    assert result["requests"] > 0
    assert list(result["versions"]) == ["2"]
    assert 3.0 <= result["seconds"] < 30.0
    assert result["candidates_per_s"] == pytest.approx(50 * result["requests_per_s"], rel=0.01)
    for measured in ("latency_ms", "service_ms"):
        figures = [result[measured][name] for name in ("p50", "p90", "p99", "p99.9", "max")]
        assert figures == sorted(figures)
        assert figures[0] > 0
    assert result["service_ms"]["p50"] < result["latency_ms"]["p50"]
    for shown in ("p99.9", "requests/s", "candidates/s", "failures: 0", "degraded: 0"):
        assert shown in output


def test_refused_requests_are_failures(models: Path) -> None:
    process = start(models, "--seconds", "1", "--candidates", "50", max_candidates=49)
    output, _ = finish(process)

    assert process.returncode == 1
    result = result_of(output)
    assert result["requests"] == 0
    assert result["failures"] > 0
    (message,) = result["failure_messages"]
    assert message.startswith("status 413: too_many_candidates")
    assert message in output


def test_degraded_answers_are_counted_and_shown(models: Path, redis_server: Redis) -> None:
    options = ("--seconds", "1", "--candidates", "50", "--format", "columns")
    process = start(models, *options, redis_url=redis_server.url)  # an empty one
    output, errors = finish(process)

    assert process.returncode == 0, errors + output
    result = result_of(output)
    assert result["degraded"] == sum(result["versions"].values()) > 0
    assert "item_not_found" in result["degraded_reasons"]
    assert f"degraded: {result['degraded']}" in output


def test_a_wrong_setting_of_the_service_is_shown(models: Path) -> None:
    process = start(models, "--candidates", "50", row_budget=0)
    _, errors = finish(process)

    assert process.returncode == 1
    assert "MULTIRANK_ROW_BUDGET" in errors


@pytest.mark.parametrize(("number", "after_s"), [(signal.SIGTERM, 0.0), (signal.SIGINT, 2.0)])
def test_stopped_half_way_it_takes_all_with_it(
    models: Path, number: signal.Signals, after_s: float
) -> None:
    process = start(models, "--seconds", "60", "--candidates", "50")
    assert process.stderr is not None
    assert "is ready" in process.stderr.readline()
    time.sleep(after_s)  # at once, locust is just being started
    process.send_signal(number)
    finish(process)

    assert process.returncode == 128 + number
