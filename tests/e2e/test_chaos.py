"""`make chaos`, reduced: every case for a moment, with more patience than a busy machine needs."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from loadtest.chaos.cases import CASES
from tests.conftest import ROOT
from tests.servers import environment


def chaos(*options: str) -> tuple[int, list[Any], str]:
    """Exit code, the JSON lines, and stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "loadtest.chaos", *options],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=150,
        cwd=ROOT,
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_no_failure_of_redis_fails_a_request() -> None:
    patient = ("--timeout-ms", "20000", "--recovery-s", "30")
    code, results, errors = chaos("--seconds", "0.3", "--pause-seconds", "0.5", *patient)
    assert code == 0, (results, errors)
    assert [result["case"] for result in results] == [case.name for case in CASES]
    for result in results:
        assert (result["failed"], result["late"], result["wrong_rows"]) == (0, 0, 0), result
        assert result["requests"] > 0


def test_a_broken_promise_ends_with_1() -> None:
    code, results, errors = chaos("--only", "paused", "--pause-seconds", "0.1", "--timeout-ms", "1")
    assert code == 1
    assert [result["ok"] for result in results] == [False]
    assert results[0]["failed"] or results[0]["late"]
    assert "1 cases broke their promise" in errors


def test_a_written_feature_is_used_by_every_worker() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "loadtest.chaos.freshness", "--tries", "20"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=150,
        cwd=ROOT,
    )
    result = json.loads(done.stdout)
    assert result["tries"] == 20, done.stderr
    assert len(result["fresh_within_1_s"]) == 2
    assert result["largest_ms"] < 5_000  # it gives up then: a value that never came
