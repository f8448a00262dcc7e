"""Two processes under torchrun end where one does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from model_export import config, pipeline
from model_export.errors import ConfigInvalid
from tests.servers import environment
from tests.unit.model_export import experiments


def _by_torchrun(content: dict[str, Any], directory: Path) -> Path:
    file = directory / "tiny.yaml"
    file.write_text(yaml.safe_dump(content))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*launcher, "--nproc-per-node", "2", "-m", "multirank", "train"]
    command += [str(file), "--runs", str(directory / "runs")]
    done = subprocess.run(
        command,
        env={**environment(), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("trained tiny") == 1, done.stdout  # the first process alone prints
    return directory / "runs" / "tiny"


@pytest.mark.parametrize("method", ["uncertainty", "mgda"])
def test_two_processes_give_the_result_of_one(method: str, tmp_path: Path) -> None:
    content = experiments.tiny(
        weighting={"method": method},
        training={"epochs": 2, "batch_rows": 100, "learning_rate": 0.02},
    )
    one = pipeline.train(config.parse(content, "tiny"), tmp_path / "one")
    two = _by_torchrun(content, tmp_path)
    weights, others = (torch.load(run / "weights.pt") for run in (one, two))
    for name, tensor in weights.items():
        torch.testing.assert_close(others[name], tensor, rtol=2e-3, atol=2e-4, msg=name)
    tests = [json.loads((run / "summary.json").read_text())["test"] for run in (one, two)]
    for task, metrics in tests[0].items():
        for metric, value in metrics.items():
            assert tests[1][task][metric] == pytest.approx(value, abs=2e-3), (task, metric)


def test_what_is_for_one_process_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    loaded = config.parse(experiments.tiny(), "tiny")
    with pytest.raises(ConfigInvalid, match="run: for one process; torchrun `multirank train`"):
        pipeline.run(loaded, tmp_path / "runs", tmp_path / "models")
    with pytest.raises(ConfigInvalid, match="export: for one process"):
        pipeline.export(tmp_path / "runs" / "tiny")
