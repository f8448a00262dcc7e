"""The examples of models from elsewhere: trained, exported, served and ranked, as they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from bundle import store
from tests.conftest import ROOT, Serve
from tests.servers import environment

pytestmark = pytest.mark.timeout(600)  # two trainings and four exports: on a busy machine, minutes


def run(*command: object) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        env=environment() | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both models, published as their examples say."""
    directory = tmp_path_factory.mktemp("examples")
    models, out = directory / "models", directory / "imported"
    printed = run(ROOT / "examples/own_model/train.py", "--models", models, "--epochs", 1)
    assert "published: " in printed
    run(ROOT / "examples/imported/train.py", "--out", out)
    command = ["import-onnx", out / "model.onnx", "--spec", out / "spec.yaml", "--models", models]
    assert "scores as the examples give them" in run("-m", "multirank", *command)
    return models


def test_they_rank(models: Path, serve: Serve) -> None:
    service = serve(models)
    for name, context in (("two-tower", ("--context", "hour=20")), ("articles", ())):
        sample = store.load(models / name / "1").manifest.samples["user"]
        users = pq.read_table(models / name / "1" / sample.file)
        user = users.column(sample.key)[0]
        command = ["-m", "multirank", "rank", "--user", user, "--url", service.url, "--model", name]
        printed = run(*command, "--models", models, *context)
        assert f"user {user}: best 10 of" in printed
        assert "degraded: null" in printed


def test_a_torch_model_of_one_s_own_has_three_stages(models: Path) -> None:
    manifest = store.load(models / "two-tower" / "1").manifest
    assert [name for name, _ in manifest.stages] == ["user", "item", "joint"]
    assert manifest.family == "TwoTower"
    assert manifest.parity.reference == "torch"
