"""The position tower: what it adds and when, what it learns, and the data it needs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model_export import config, pipeline
from model_export.data import loaders
from model_export.data.impressions import Feed
from model_export.errors import DataInvalid
from model_export.models.position_bias import PositionBias, PositionBiasOptions
from tests.architectures import ARCHITECTURES
from tests.unit.model_export import experiments, networks
from tests.unit.model_export.models.training import trained


def test_the_position_is_dropped_in_training_and_missing_in_serving() -> None:
    bias = PositionBias(2, PositionBiasOptions(positions=3, dropout=0.25))
    weight = torch.tensor([[0.5, -0.5], [1, 10], [2, 20], [3, 30]])
    with torch.no_grad():
        bias.weight.copy_(weight)
        places = torch.tensor([0, 1, 2, 7])
        assert torch.equal(bias.eval()(places), weight[[1, 2, 3, 3]])
        assert torch.equal(bias(None), weight[0])
        torch.manual_seed(0)
        dropped = bias.train()(torch.zeros(10_000, dtype=torch.int64))[:, 0] == 0.5
        assert dropped.float().mean().item() == pytest.approx(0.25, abs=0.02)


def test_the_bias_is_added_to_the_logits_of_its_position() -> None:
    model = networks.build("mmoe_position")
    user, item = networks.encoded(2, 6)
    positions = np.array([0, 1, 2, 3, 9, 0])
    with torch.no_grad():
        rows = np.arange(6) % 2
        shown = networks.logits(model, user, item, rows, positions)
        unknown = networks.logits(model, user, item, rows)
        weight = model.get_parameter("position_bias.weight")
        expected = weight[[1, 2, 3, 4, 4, 1]] - weight[0]
    torch.testing.assert_close(shown - unknown, expected)


def test_the_tower_learns_what_the_position_does(tmp_path: Path) -> None:
    options = ARCHITECTURES["mmoe_position"]
    model = trained(options, tmp_path / "run", 256, impressions=800, position_bias=3.0)
    click = model.get_parameter("position_bias.weight")[1:, 0]
    assert (click[:-1] > click[1:]).all()  # from the top down, ever less likely


def test_a_position_tower_needs_data_with_positions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = loaders.load

    def without_positions(options: Any) -> Feed:
        feed = load(options)
        return replace(feed, train=replace(feed.train, positions=None))

    monkeypatch.setattr(loaders, "load", without_positions)
    loaded = config.parse(experiments.tiny(architecture=ARCHITECTURES["mmoe_position"]), "tiny")
    with pytest.raises(DataInvalid, match=r"architecture\.position_bias: synthetic does not say"):
        pipeline.train(loaded, tmp_path / "run")
    assert not (tmp_path / "run").exists()
