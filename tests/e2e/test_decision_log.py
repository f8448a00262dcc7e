"""The decision log of real processes: whole after a stop, readable after a kill, and replayed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from multirank.main import app
from service.decision_log.reading import Recorded, files_of, read
from tests.conftest import Serve
from tests.published import Expected, ModelsDirectory
from tests.servers import WAIT_S, Service, environment, eventually

CONTEXT = {"hour": 20}


def everything(log: Path) -> list[Recorded]:
    return [recorded for file in files_of(log) for recorded in read(file)]


def ask_all(service: Service, expected: Expected, requests: int = 12) -> dict[str, Any]:
    """Rank and score for several users, some of them with features of their own."""
    users, items = expected.ids("user"), expected.ids("item")
    answers = {}
    for number in range(requests):
        body: dict[str, Any] = {
            "request_id": f"request-{number}",
            "user": {"id": users[number]},
            "context": CONTEXT,
            "candidates": {"ids": items[number : number + 30]},
        }
        if number % 3 == 1:
            body["candidates"]["features"] = {"price": [number + 0.5] * 30}
        if number % 3 == 2:
            body |= {"top_k": 5, "fusion": {"weights": {"like_weight": 0.5}}}
        answers[f"request-{number}"] = service.ask("/score" if number % 4 == 3 else "/rank", body)
    return answers


def replay(log: Path, models: Path, against: int, *options: str) -> Any:
    command = ["replay", str(log), "--against", str(against), "--models", str(models), "--json"]
    done = CliRunner().invoke(app, [*command, *options])
    assert done.exit_code == 0, done.output
    return json.loads(done.output)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def test_a_log_replays_to_the_same_scores(
    models_dir: ModelsDirectory, serve: Serve, log: Path
) -> None:
    service = serve(models_dir.path, decision_log_dir=log, decision_log_rate=1)
    answers = ask_all(service, models_dir.expected(1))
    service.stop()

    assert {path.suffix for path in files_of(log)} == {".parquet"}
    recorded = {each.request_id: each for each in everything(log)}
    assert set(recorded) == set(answers)
    for request_id, answer in answers.items():
        known = recorded[request_id]
        by_id = dict(zip(known.item_ids, known.scores.tolist(), strict=True))
        for item in answer["items"]:
            assert list(item["tasks"].values()) == pytest.approx(by_id[str(item["id"])], abs=1e-6)
    ranked = [answer for answer in answers.values() if "fusion" in answer]

    same = replay(log, models_dir.path, 1)
    assert same["requests"] == 12
    assert same["fused"] == len(ranked) == 9
    assert (same["order_changed"], same["kendall_tau"], same["top_k_overlap"]) == (0, 1.0, 1.0)
    assert (same["other_formula"], same["absent_features"], same["missing_tasks"]) == (0, {}, {})
    # a batch of other requests' rows may round otherwise, in the last of float32's digits
    assert max(task["max"] for name, task in same["tasks"].items() if "seconds" not in name) < 1e-6

    models_dir.publish(2)
    other = replay(log, models_dir.path, 2, "--top-k", "5", "--show", "2")
    assert min(task["max"] for task in other["tasks"].values()) > 1e-3
    assert other["order_changed"] == 9
    assert other["kendall_tau"] < 1.0
    worst, second = other["most_changed"]
    assert worst["kendall_tau"] <= second["kendall_tau"] <= other["kendall_tau"]


def test_recorded_requests_warm_up_and_load(
    models_dir: ModelsDirectory, serve: Serve, log: Path
) -> None:
    service = serve(models_dir.path, decision_log_dir=log, decision_log_rate=1)
    ask_all(service, models_dir.expected(1))
    service.stop()

    (file,) = files_of(log)
    shutil.copy(file, models_dir.model / "warm_up.parquet")
    warm = serve(models_dir.path)
    warm.expect_in_log("warmed up with 12 recorded requests")
    assert warm.metric("multirank_item_cache_bytes", model="synthetic") > 0
    assert warm.metric("multirank_item_cache_rows_total", model="synthetic", outcome="hit") > 0

    command = [sys.executable, "-m", "loadtest.run", "--models", str(models_dir.path)]
    done = subprocess.run(
        [*command, "--recorded", str(log), "--seconds", "1", "--users", "2"],
        env=environment(timeout_ms=30_000),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["requests"] > 0
    assert (result["failures"], result["degraded"], result["candidates"]) == (0, 0, 30)


def test_a_kill_loses_no_more_than_the_tail(
    models_dir: ModelsDirectory, serve: Serve, log: Path
) -> None:
    settings: dict[str, Any] = {
        "decision_log_dir": log,
        "decision_log_rate": 1,
        "decision_log_file_s": 3600,
    }
    service = serve(models_dir.path, **settings)
    ask_all(service, models_dir.expected(1))
    eventually(lambda: any(log.rglob("*.open")) and len(everything(log)) == 12)
    service.process.kill()
    service.killed()

    (left,) = files_of(log)
    assert left.suffix == ".open"
    with left.open("ab") as file:
        file.write(b"\xff\xff\xff\xff\x10\x01\x00\x00half a batch")
    assert len(everything(log)) == 12

    successor = serve(models_dir.path, **settings)
    eventually(lambda: not left.exists())
    (closed,) = files_of(log)
    assert closed.suffix == ".parquet"
    assert pq.read_metadata(closed).num_rows == len(everything(log)) == 12
    assert successor.metric("multirank_decision_log_files_total", event="recovered") == 1


def test_each_worker_has_files_of_its_own(
    models_dir: ModelsDirectory, serve: Serve, log: Path
) -> None:
    service = serve(models_dir.path, workers=2, decision_log_dir=log, decision_log_rate=1)
    body = {"user": {"id": "u1"}, "context": CONTEXT, "candidates": {"ids": ["i1", "i2"]}}
    with ExitStack() as connections:
        for _ in range(4):  # they are spread evenly, and stay where they are
            client = connections.enter_context(httpx.Client(base_url=service.url, timeout=WAIT_S))
            for _ in range(3):
                assert client.post("/rank", json=body).status_code == 200
    eventually(lambda: any(log.rglob("*.open")) and len(everything(log)) == 12)
    files = {re.findall(r"-w(\d)-(\d+)", path.name)[0]: path for path in files_of(log)}
    assert {worker for worker, _ in files} == {"0", "1"}

    (killed,) = (key for key in files if key[0] == "0")
    os.kill(int(killed[1]), signal.SIGKILL)
    service.expect_in_log("worker 0 was ended by SIGKILL")
    eventually(lambda: not files[killed].exists())
    service.stop()
    assert {path.suffix for path in files_of(log)} == {".parquet"}
    assert len({each.request_id for each in everything(log)}) == 12


def test_what_cannot_be_replayed_is_said(models_dir: ModelsDirectory, tmp_path: Path) -> None:
    def refused(log: Path, *options: str) -> str:
        command = ["replay", str(log), "--against", "1", "--models", str(models_dir.path)]
        done = CliRunner().invoke(app, [*command, *options])
        assert done.exit_code == 1
        return done.output

    (tmp_path / "empty").mkdir()
    assert "no decision log there" in refused(tmp_path / "empty")
    pq.write_table(pq.read_table(next(models_dir.model.rglob("*.parquet"))), tmp_path / "a.parquet")
    assert "a.parquet: no decision log" in refused(tmp_path / "a.parquet")
