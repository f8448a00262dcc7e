"""What a run keeps for people: gate usage, gradient conflict, TensorBoard, the picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from model_export import config, pipeline
from model_export.errors import ConfigInvalid
from model_export.training.objective import conflict
from model_export.weighting import Step
from tests.architectures import experiment
from tests.unit.model_export import experiments


def _epochs(directory: Path) -> list[dict[str, Any]]:
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=_no_constant) for line in lines[:-1]]


def _no_constant(name: str) -> None:
    raise AssertionError(f"{name} in the metrics")


def test_gates_weights_and_conflict_of_each_epoch(tiny_run: Path) -> None:
    for epoch in _epochs(tiny_run):
        (usage,) = epoch["gates"].values()
        assert np.shape(usage) == (3, 2)  # tasks, experts
        assert np.sum(usage, axis=1) == pytest.approx(1)
        cosines = np.array(epoch["conflict"])
        assert cosines.shape == (3, 3)
        assert np.diag(cosines) == pytest.approx(1, abs=1e-3)
        assert (abs(cosines) <= 1.001).all()
        assert epoch["weights"] == {"click": 1, "like": 1, "watch_seconds": 1}


def test_the_board_has_the_numbers_of_the_metrics(tiny_run: Path) -> None:
    board = EventAccumulator(str(tiny_run / "tensorboard"))
    board.Reload()
    epochs = _epochs(tiny_run)
    for tag, values in (
        ("losses/click", [epoch["losses"]["click"] for epoch in epochs]),
        ("validation/like/auc", [epoch["validation"]["like"]["auc"] for epoch in epochs]),
        ("conflict/click_like", [epoch["conflict"][0][1] for epoch in epochs]),
    ):
        events = board.Scalars(tag)
        assert [event.step for event in events] == [1, 2]
        assert [event.value for event in events] == pytest.approx(values)


def test_there_is_a_picture(tiny_run: Path) -> None:
    assert (tiny_run / "picture.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("architecture", ["ple", "moe", "single_task"])
def test_pictures_of_several_gates_one_gate_and_none(architecture: str, tmp_path: Path) -> None:
    directory = pipeline.train(experiment(architecture), tmp_path / "run")
    (epoch,) = _epochs(directory)
    shapes = [np.shape(usage) for usage in epoch["gates"].values()]
    assert shapes == {"ple": [(4, 4), (3, 4)], "moe": [(1, 2)], "single_task": []}[architecture]
    assert (directory / "picture.png").is_file()
    if architecture == "single_task":  # nothing is shared
        assert np.array(epoch["conflict"]) == pytest.approx(0)


def test_conflict_is_the_cosine_of_the_gradients() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    gradients = torch.tensor([[1.0, 0.0], [-1.0, 1.0], [0.0, 0.0]])
    step = Step(
        losses=gradients @ parameter,
        defined=torch.tensor([True, True, False]),
        extra=torch.zeros(()),
        shared=[parameter],
        own=[],
        mean=lambda tensor: tensor,
    )
    expected = [[1, -0.7071, 0], [-0.7071, 1, 0], [0, 0, 0]]
    assert np.array(conflict(step)) == pytest.approx(np.array(expected), abs=1e-4)


def test_bfloat16_trains_nearly_as_float32_does(tiny_run: Path, tmp_path: Path) -> None:
    content = experiments.tiny()
    content["training"]["precision"] = "bfloat16"
    directory = pipeline.train(config.parse(content, "tiny"), tmp_path / "run")
    mixed, full = (_epochs(run)[-1]["losses"]["click"] for run in (directory, tiny_run))
    assert mixed == pytest.approx(full, rel=0.02)
    assert mixed != full


def test_a_device_that_is_not_there_is_told(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    content = experiments.tiny()
    content["training"]["device"] = "cuda"
    with pytest.raises(ConfigInvalid, match="there is no CUDA device; use auto or cpu"):
        pipeline.train(config.parse(content, "tiny"), tmp_path / "run")
