"""Options of an architecture that do not fit the rest of the configuration, or the data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model_export import config, pipeline
from model_export.data import loaders
from model_export.data.impressions import Feed
from model_export.errors import ConfigInvalid, DataInvalid
from tests.architectures import ARCHITECTURES, experiment
from tests.unit.model_export import experiments


@pytest.mark.parametrize(
    ("roles", "task", "message"),
    [
        ({"click": "clicked"}, {}, "esmm: 'clicked' is not a binary task of `tasks`"),
        ({"conversion": "click"}, {}, "esmm: each of its three roles needs a task of its own"),
        ({}, {"entire_space": False}, r"'click_and_like' is defined only .* `entire_space: true`"),
        ({}, {"negatives": {"keep": 0.5}}, "'click_and_like' may not leave out `negatives`"),
    ],
)
def test_esmm_needs_its_three_tasks(
    roles: dict[str, str], task: dict[str, Any], message: str
) -> None:
    content = experiment("esmm").model_dump(mode="json", exclude_unset=True)
    content["architecture"].update(roles)
    content["tasks"][2].update(task)
    with pytest.raises(ConfigInvalid, match=message):
        config.parse(content, "tiny")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_survives_being_written_and_read(name: str) -> None:
    loaded = experiment(name)
    assert config.parse(loaded.model_dump(mode="json"), "dumped") == loaded


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
