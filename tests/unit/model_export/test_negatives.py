"""Fewer negatives in training, and calibrated all the same; auxiliary tasks; other losses."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle import manifest
from bundle.stages import Stages
from model_export import config, pipeline
from model_export.data.batches import training_batches
from model_export.data.encoded import EncodedSet
from model_export.training import run_directory
from model_export.training.evaluation import predict
from tests.unit.model_export import experiments

ROWS = experiments.tiny()["data"] | {"impressions": 1500}
TRAINING = {"epochs": 3, "batch_rows": 256, "learning_rate": 0.01}


def _train(tasks: list[dict[str, Any]], directory: Path) -> tuple[float, float]:
    """Mean click probability on all training rows, and the share of them that was clicked."""
    loaded = config.parse(experiments.tiny(data=ROWS, training=TRAINING, tasks=tasks), "tiny")
    run = run_directory.read(pipeline.train(loaded, directory / "run"))
    found = predict(run.model, pipeline.prepare(loaded).train)
    return float(found.scores[:, 0].mean()), float(found.labels[:, 0].mean())


@pytest.mark.parametrize("by", ["sampling", "weighting"])
def test_served_probabilities_are_those_of_all_rows(by: str, tmp_path: Path) -> None:
    tasks = copy.deepcopy(experiments.tiny()["tasks"])
    tasks[0]["negatives"] = {"keep": 0.2, "by": by}
    predicted, observed = _train(tasks, tmp_path)
    assert predicted == pytest.approx(observed, abs=0.06)
    # uncorrected, odds would be five times too high
    assert observed < 0.6


def test_sampling_keeps_positives_and_the_rows_of_other_tasks() -> None:
    content = experiments.tiny(tasks=[{"name": "click", "kind": "binary"}])
    content["tasks"][0]["negatives"] = {"keep": 0.25}
    loaded = config.parse(content, "tiny")
    train = pipeline.prepare(loaded).train
    assert isinstance(train, EncodedSet)
    positives = int(train.labels.sum())

    def epoch(seed: int) -> tuple[int, int]:
        batches = list(
            training_batches(train, loaded.tasks, 64, np.random.default_rng(seed), lambda x: x)
        )
        assert batches[-1].done == pytest.approx(1)
        labels = np.concatenate([each.batch.labels.numpy() for each in batches])
        assert len(labels) == sum(int(each.defined[0]) for each in batches)
        return int(labels.sum()), len(labels)

    (first, rows), (second, other_rows) = epoch(1), epoch(2)
    assert first == second == positives
    negatives = len(train) - positives
    assert rows - positives == pytest.approx(0.25 * negatives, rel=0.3)
    assert rows != other_rows  # drawn anew in each epoch


def test_an_auxiliary_task_is_trained_and_measured_and_not_served(tmp_path: Path) -> None:
    tasks = copy.deepcopy(experiments.tiny()["tasks"])
    tasks[0]["serve"] = False
    tasks[2]["loss"] = {"name": "huber", "delta": 1.5}
    loaded = config.parse(experiments.tiny(tasks=tasks, fusion=None), "tiny")
    directory = pipeline.train(loaded, tmp_path / "run")
    bundle = pipeline.export(directory)  # parity is checked on what is served
    written = manifest.parse((bundle / manifest.MANIFEST_FILE).read_bytes())
    assert written.task_names == ("like", "watch_seconds")
    assert isinstance(written.stages, Stages)
    assert written.stages.joint.output_width == 2
    assert set(run_directory.read_summary(directory).test) == {"click", "like", "watch_seconds"}


def test_watch_time_by_weighted_logistic_regression_is_exported(tmp_path: Path) -> None:
    tasks = copy.deepcopy(experiments.tiny()["tasks"])
    tasks[2] |= {"entire_space": True, "loss": {"name": "weighted_logistic"}}
    hour, price = (f for f in experiments.tiny()["features"] if f["name"] in ("hour", "price"))
    content = experiments.tiny(data=ROWS, training=TRAINING, tasks=tasks, features=[hour, price])
    loaded = config.parse(content, "tiny")
    directory = pipeline.train(loaded, tmp_path / "run")
    pipeline.export(directory)
    run = run_directory.read(directory)
    found = predict(run.model, pipeline.prepare(loaded).train)
    clicks, seconds = found.labels[:, 0], found.labels[:, 2]
    # features that say little: about sum(T) / (N - k), the paper's odds, for every row
    assert found.scores[:, 2].min() > 0
    assert found.scores[:, 2].mean() == pytest.approx(seconds.sum() / (1 - clicks).sum(), rel=0.35)
