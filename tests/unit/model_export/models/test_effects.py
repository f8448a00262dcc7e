"""What the special parts of some architectures are for, seen after a short training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from model_export import config, pipeline
from model_export.models.base import MultiTaskModel
from model_export.models.snr import SNR, HardConcrete
from model_export.training import run_directory
from tests.architectures import ARCHITECTURES
from tests.unit.model_export import experiments


def _trained(
    architecture: dict[str, Any], directory: Path, batch_rows: int, **data: object
) -> MultiTaskModel:
    tiny = experiments.tiny()
    content = experiments.tiny(
        architecture={"embedding_width": 4, "tower_layers": [4], **architecture},
        data={**tiny["data"], **data},
        training={"epochs": 3, "batch_rows": batch_rows, "learning_rate": 0.1},
    )
    return run_directory.read(pipeline.train(config.parse(content, "tiny"), directory)).model


def test_the_tower_learns_what_the_position_does(tmp_path: Path) -> None:
    options = ARCHITECTURES["mmoe_position"]
    model = _trained(options, tmp_path / "run", 256, impressions=800, position_bias=3.0)
    click = model.get_parameter("position_bias.weight")[1:, 0]
    assert (click[:-1] > click[1:]).all()  # from the top down, ever less likely


def test_the_l0_term_closes_connections(tmp_path: Path) -> None:
    opened = []
    for weight in (0.0, 1.0):
        options = {**ARCHITECTURES["snr_trans"], "l0_weight": weight}
        model = _trained(options, tmp_path / f"run-{weight}", 32)
        assert isinstance(model, SNR)
        gates = [module for module in model.modules() if isinstance(module, HardConcrete)]
        opened.append(torch.cat([gate.open().flatten() for gate in gates]).mean().item())
    free, penalised = opened
    assert penalised < free - 0.1
