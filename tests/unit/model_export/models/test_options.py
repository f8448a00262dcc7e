"""Options of an architecture that do not fit the rest of the configuration, or the data."""

from __future__ import annotations

from typing import Any

import pytest

from model_export import config
from model_export.errors import ConfigInvalid
from tests.architectures import ARCHITECTURES, experiment


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
