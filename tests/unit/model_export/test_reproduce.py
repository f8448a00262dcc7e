"""The reproduction: sizes are equal, results are kept, words follow from figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from model_export import config, pipeline
from model_export.reproduce import budget, results
from model_export.reproduce.findings import compared, spread
from tests.unit.model_export import experiments, networks

QUIET = Console(quiet=True)


@pytest.mark.parametrize("name", budget.TEMPLATES)
def test_every_architecture_comes_within_a_tenth_of_the_budget(name: str) -> None:
    common = {"embedding_width": 4, "tower_layers": (5,)}
    options = budget.sized(name, common, networks.SCHEMA, networks.TASKS, 6000)
    assert budget.counted(options, networks.SCHEMA, networks.TASKS) == pytest.approx(6000, rel=0.1)


def test_embeddings_are_not_counted() -> None:
    options = networks.options("shared_bottom")
    model = networks.build_split("shared_bottom")
    whole = sum(parameter.numel() for parameter in model.parameters())
    counted = budget.counted(options, networks.SCHEMA, networks.TASKS)
    assert counted == whole - model.embeddings.weight.numel()


def test_a_budget_that_no_width_meets_is_told() -> None:
    common = {"embedding_width": 4, "tower_layers": (5,)}
    with pytest.raises(ValueError, match="ple: no width gives 10 parameters"):
        budget.sized("ple", common, networks.SCHEMA, networks.TASKS, 10)


def test_a_result_is_trained_once_and_read_the_next_time(tmp_path: Path) -> None:
    loaded = config.parse(experiments.tiny(), "tiny")
    prepared = pipeline.prepare(loaded)
    first = results.trained(loaded, prepared, tmp_path, QUIET)
    (kept,) = tmp_path.iterdir()
    assert json.loads(kept.read_text()) == first
    kept.write_text(json.dumps(first | {"seconds": -1}))
    assert results.trained(loaded, prepared, tmp_path, QUIET)["seconds"] == -1
    other = loaded.model_copy(update={"seed": 5})
    assert results.trained(other, prepared, tmp_path, QUIET)["seconds"] >= 0
    assert len(list(tmp_path.iterdir())) == 2


def test_words_follow_from_the_figures() -> None:
    assert compared([2.0, 3.0, 4.1], [1.0, 2.0, 3.0]).startswith("it appears (+1.03")
    assert compared([1.0, 2.0, 3.0], [2.0, 3.0, 4.1]).startswith("it does NOT appear, the reverse")
    assert compared([1.0, 2.0, 3.0], [1.1, 1.9, 3.1]).startswith("it cannot be told (-0.03")
    assert compared([2.0, 3.0], [1.0, 2.8]).startswith("it cannot be told")  # two seeds are few
    assert compared([2.0], [1.0]) == "+1.0000 in one seed: it cannot be told"
    assert spread([0.5, 0.7]) == "0.6000 ± 0.1414"
    assert spread([0.5]) == "0.5000"
