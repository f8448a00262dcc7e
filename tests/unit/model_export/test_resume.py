"""An interrupted training that is resumed ends as one that was not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from model_export import config, pipeline
from model_export.config import Config
from model_export.errors import RunUnusable
from model_export.training import run_directory
from model_export.training.run_directory import RunWriter
from tests.unit.model_export import experiments


def _config(method: str) -> Config:
    content = experiments.tiny(
        weighting={"method": method},
        training={"epochs": 4, "batch_rows": 256, "learning_rate": 0.02, "patience": 4},
    )
    content["architecture"]["dropout"] = 0.2
    return config.parse(content, "tiny")


def _break_after(epochs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ends when it has written the record of so many epochs."""
    whole = RunWriter.epoch

    def epoch(self: RunWriter, record: dict[str, Any]) -> None:
        whole(self, record)
        if record["number"] == epochs:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunWriter, "epoch", epoch)


def _files(directory: Path) -> tuple[list[Any], dict[str, torch.Tensor]]:
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines], torch.load(directory / "weights.pt")


@pytest.mark.parametrize("method", ["dwa", "gradnorm", "uncertainty", "pcgrad"])
def test_resumed_is_as_if_uninterrupted(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = _config(method)
    straight = pipeline.train(loaded, tmp_path / "straight")
    with monkeypatch.context() as patch:
        _break_after(2, patch)
        with pytest.raises(KeyboardInterrupt):
            pipeline.train(loaded, tmp_path / "broken")
    assert not run_directory.is_finished(tmp_path / "broken", loaded)
    torch.rand(3)  # what else was drawn meanwhile must not matter
    resumed = pipeline.train(loaded, tmp_path / "broken", resume=True)
    (metrics, weights), (others, resumed_weights) = _files(straight), _files(resumed)
    assert metrics == others
    assert all(torch.equal(weights[name], resumed_weights[name]) for name in weights)
    assert not (resumed / "checkpoint.pt").exists()


def test_only_the_same_configuration_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = _config("static")
    with monkeypatch.context() as patch:
        _break_after(1, patch)
        with pytest.raises(KeyboardInterrupt):
            pipeline.train(loaded, tmp_path / "run")
    other = loaded.model_copy(update={"seed": 8})
    with pytest.raises(RunUnusable, match="another configuration; train without --resume"):
        pipeline.train(other, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "checkpoint.pt").is_file()
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"damaged")
    with pytest.raises(RunUnusable, match="damaged, train again without --resume"):
        pipeline.train(loaded, tmp_path / "run", resume=True)


def test_resuming_what_never_began_trains_from_the_start(tmp_path: Path, tiny_run: Path) -> None:
    loaded = config.parse(experiments.tiny(), "tiny")
    fresh = pipeline.train(loaded, tmp_path / "run", resume=True)
    assert _files(fresh)[0] == _files(tiny_run)[0]
