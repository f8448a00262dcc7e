"""The run directory: everything of one training, enough to export it later without training.

runs/<name>/config.yaml          the configuration, every default spelt out
            metrics.jsonl        a line for each epoch, and one for the held-out test
            schema.json          the fitted feature schema
            vocabularies.npz     hashes of the vocabularies' values
            weights.pt           the network's best weights
            examples.npz         packed held-out rows, for parity and golden rows
            user.parquet, item.parquet   all entities with their newest features
            summary.json         data set, sizes, held-out metrics; written last: finished
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch

from bundle.encoding import Encoder
from bundle.rows import Rows
from bundle.schema import Entity, FeatureSchema
from model_export import config as config_file
from model_export.config import Config
from model_export.data.fit import FittedFeatures
from model_export.data.impressions import EntitySample
from model_export.errors import ConfigInvalid, RunUnusable
from model_export.models import families
from model_export.models.base import MultiTaskModel
from model_export.training.evaluation import Metrics

_CONFIG_FILE = "config.yaml"
_SUMMARY_FILE = "summary.json"
_SAMPLED: tuple[Entity, ...] = ("user", "item")
_KEY, _DISPLAY = b"multirank.key", b"multirank.display"


@dataclass(frozen=True)
class Examples:
    """Packed held-out rows that belong together.

    Attributes:
        users, contexts: [U] packed rows. items: [N] packed rows.
    """

    users: Rows
    contexts: Rows
    items: Rows


@dataclass(frozen=True)
class Summary:
    """What came out of a training, for people and for the manifest.

    Attributes:
        dataset: one line naming the data.
        sizes: numbers of users, items and rows of each part.
        epochs: passes over the training part until it stopped.
        seconds: how long training took.
        test: metrics on the held-out test period.
    """

    dataset: str
    sizes: dict[str, int]
    epochs: int
    seconds: float
    test: Metrics


@dataclass(frozen=True)
class FinishedRun:
    """A finished training, read back from its directory."""

    path: Path
    config: Config
    features: FittedFeatures
    model: MultiTaskModel
    examples: Examples
    samples: tuple[EntitySample, ...]
    summary: Summary

    def encoder(self) -> Encoder:
        """The encoder of the run's features."""
        return self.features.encoder()


class RunWriter:
    """Writes a run directory; what was there before is removed first."""

    def __init__(self, path: Path, config: Config) -> None:
        self.path = path
        if path.exists():
            if not (path / _CONFIG_FILE).is_file():
                raise RunUnusable(f"{path}: in the way of a run, and not a run directory")
            shutil.rmtree(path)
        path.mkdir(parents=True)
        (path / _CONFIG_FILE).write_text(config_file.dump(config), encoding="utf-8")

    def metrics(self, record: dict[str, Any]) -> None:
        """Append a line to the metrics."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def finish(
        self,
        model: MultiTaskModel,
        features: FittedFeatures,
        examples: Examples,
        samples: tuple[EntitySample, ...],
        summary: Summary,
    ) -> None:
        """Write all that an export needs, and the summary last."""
        torch.save(model.state_dict(), self.path / "weights.pt")
        (self.path / "schema.json").write_text(features.schema.model_dump_json(indent=1))
        vocabularies: dict[str, npt.NDArray[Any]] = dict(features.vocabularies)
        np.savez(self.path / "vocabularies.npz", allow_pickle=False, **vocabularies)
        np.savez(self.path / "examples.npz", allow_pickle=False, **vars(examples))
        for sample in samples:
            described = {_KEY: sample.key, _DISPLAY: json.dumps(sample.display)}
            table = sample.table.replace_schema_metadata(described)
            pq.write_table(table, self.path / f"{sample.entity}.parquet")
        (self.path / _SUMMARY_FILE).write_text(json.dumps(vars(summary), indent=1))


def is_finished(path: Path, config: Config) -> bool:
    """Whether `path` holds a finished training of exactly this configuration."""
    if not (path / _SUMMARY_FILE).is_file():
        return False
    try:
        return read_config(path) == config
    except ConfigInvalid:  # written by another release
        return False


def read_summary(path: Path) -> Summary:
    """The summary of a finished run.

    Raises:
        RunUnusable: there is none.
    """
    try:
        return Summary(**json.loads((path / _SUMMARY_FILE).read_text()))
    except FileNotFoundError as error:
        raise RunUnusable(f"{path}: no finished training; run `multirank train` first") from error


def read(path: Path) -> FinishedRun:
    """Read a finished run back.

    Raises:
        RunUnusable: training has not finished there, or its weights are another release's.
    """
    summary = read_summary(path)
    config = read_config(path)
    schema = FeatureSchema.model_validate_json((path / "schema.json").read_text())
    with np.load(path / "vocabularies.npz") as archive:
        features = FittedFeatures(schema, {name: archive[name] for name in archive.files})
    with np.load(path / "examples.npz") as archive:
        examples = Examples(**{name: archive[name] for name in archive.files})
    tasks = [task.served() for task in config.tasks]
    model = families.build(config.architecture, schema, tasks)
    try:
        model.load_state_dict(torch.load(path / "weights.pt", weights_only=True))
    except RuntimeError as error:
        raise RunUnusable(f"{path}: weights of another release; train again: {error}") from error
    model.eval()
    samples = tuple(_read_sample(path, entity) for entity in _SAMPLED)
    return FinishedRun(path, config, features, model, examples, samples, summary)


def read_config(path: Path) -> Config:
    """The configuration of a run."""
    return config_file.load(path / _CONFIG_FILE)


def _read_sample(path: Path, entity: Entity) -> EntitySample:
    table = pq.read_table(path / f"{entity}.parquet")
    described = table.schema.metadata
    display = tuple(json.loads(described[_DISPLAY]))
    return EntitySample(entity, table, described[_KEY].decode(), display)
