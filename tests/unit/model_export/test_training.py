"""Training end to end on the tiny feed: repeatable, learns, keeps the best weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from model_export import config, pipeline
from model_export.config import Config
from model_export.data import loaders
from model_export.data.encoded import EncodedSet, encode
from model_export.data.fit import fit
from model_export.data.training_labels import scaling_labels
from model_export.errors import DataInvalid, RunUnusable
from model_export.models.base import MultiTaskModel
from model_export.training import run_directory, trainer
from model_export.training.evaluation import evaluate
from model_export.training.trainer import Epoch
from tests.unit.model_export import experiments


def _metrics(directory: Path) -> list[dict[str, Any]]:
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_the_same_seed_gives_the_same_metrics_and_weights(
    tiny_config: Config, tiny_run: Path, tmp_path: Path
) -> None:
    torch.rand(3)  # what else was drawn before must not matter
    again = pipeline.train(tiny_config, tmp_path / "again")
    assert _metrics(again) == _metrics(tiny_run)
    first, second = (
        torch.load(directory / "weights.pt", weights_only=True) for directory in (tiny_run, again)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_another_seed_gives_another_network(
    tiny_config: Config, tiny_run: Path, tmp_path: Path
) -> None:
    other = tiny_config.model_copy(update={"seed": 4})
    assert _metrics(pipeline.train(other, tmp_path / "other")) != _metrics(tiny_run)


def test_training_leaves_torch_as_it_was(tiny_config: Config, tmp_path: Path) -> None:
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    pipeline.train(tiny_config, tmp_path / "run")
    assert torch.equal(torch.rand(2), expected)


def test_a_line_for_each_epoch_and_one_for_the_test(tiny_run: Path) -> None:
    *epochs, last = _metrics(tiny_run)
    assert [epoch["number"] for epoch in epochs] == [1, 2]
    assert set(last["test"]) == {"click", "like", "watch_seconds"}
    assert 0 < last["test"]["click"]["auc"] < 1
    assert last["test"]["watch_seconds"]["rmse"] > 0


@pytest.mark.parametrize("family", ["shared_bottom", "mmoe", "ple"])
def test_every_family_learns_the_structure_of_the_feed(family: str) -> None:
    sizes: dict[str, dict[str, Any]] = {
        "shared_bottom": {"bottom_layers": [16]},
        "mmoe": {"experts": 2, "expert_layers": [16]},
        "ple": {"task_experts": 1, "shared_experts": 1, "levels": [[16], [8]]},
    }
    loaded = config.parse(
        experiments.tiny(
            data={**experiments.tiny()["data"], "impressions": 1500},
            architecture={"family": family, "embedding_width": 8, **sizes[family]},
            training={"epochs": 6, "batch_rows": 512, "learning_rate": 0.05},
        ),
        "tiny",
    )
    model, parts, epochs = _train(loaded)
    assert epochs[-1].losses["click"] < epochs[0].losses["click"]
    click = evaluate(model, [task.served() for task in loaded.tasks], parts[2])["click"]
    assert click["auc"] is not None
    assert click["auc"] > 0.6


def test_the_best_weights_are_restored_and_patience_ends_training(tiny_config: Config) -> None:
    options = tiny_config.training.model_copy(
        update={"epochs": 30, "patience": 2, "learning_rate": 0.3}
    )
    loaded = tiny_config.model_copy(update={"training": options})
    model, parts, epochs = _train(loaded)
    objectives = [epoch.objective for epoch in epochs]
    best = int(np.argmax(objectives))
    assert len(epochs) == best + 1 + 2
    validation = evaluate(model, [task.served() for task in loaded.tasks], parts[1])
    assert validation == epochs[best].validation


def test_a_run_reads_back_as_it_was_written(tiny_config: Config, tiny_run: Path) -> None:
    run = run_directory.read(tiny_run)
    assert run.config == tiny_config
    assert run_directory.is_finished(tiny_run, tiny_config)
    other = tiny_config.model_copy(update={"seed": 9})
    assert not run_directory.is_finished(tiny_run, other)
    feed = loaders.load(tiny_config.data)
    held_out = encode(next(feed.test.chunks()), tiny_config.tasks, run.encoder())
    tasks = [task.served() for task in tiny_config.tasks]
    assert evaluate(run.model, tasks, held_out) == run.summary.test
    users, items = run.samples
    assert (users.key, items.key, items.display) == ("user_id", "item_id", ("title",))


def test_weights_that_do_not_fit_are_told(tiny_run: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    torch.save({"other": torch.zeros(1)}, copied / "weights.pt")
    with pytest.raises(RunUnusable, match="another release; train again"):
        run_directory.read(copied)


def test_an_unfinished_run_cannot_be_read(tiny_config: Config, tmp_path: Path) -> None:
    run_directory.RunWriter(tmp_path / "run", tiny_config)
    assert not run_directory.is_finished(tmp_path / "run", tiny_config)
    with pytest.raises(RunUnusable, match="no finished training"):
        run_directory.read(tmp_path / "run")


def test_a_directory_that_is_no_run_is_not_removed(tiny_config: Config, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("text")
    with pytest.raises(RunUnusable, match="not a run directory"):
        pipeline.train(tiny_config, tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter").read_text() == "text"


def test_data_that_does_not_fit_leaves_no_run(tiny_config: Config, tmp_path: Path) -> None:
    content = experiments.tiny()
    content["tasks"][1]["where"] = "seen"
    with pytest.raises(DataInvalid, match="like: no outcome 'seen'"):
        pipeline.train(config.parse(content, "tiny"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def _train(loaded: Config) -> tuple[MultiTaskModel, list[EncodedSet], list[Epoch]]:
    feed = loaders.load(loaded.data)
    features = fit(loaded.features, feed.train)
    parts = [
        encode(next(part.chunks()), loaded.tasks, features.encoder())
        for part in (feed.train, feed.validation, feed.test)
    ]
    torch.manual_seed(loaded.seed)
    model = run_directory.network(loaded, features.schema)
    model.outputs.fit(scaling_labels(loaded.tasks, parts[0], "feed"))
    epochs = list(trainer.train(model, loaded, parts[0], parts[1], Console(quiet=True)))
    return model, parts, epochs
