"""The run directory: everything of one training, enough to export it later without training.

runs/<name>/config.yaml          the configuration, every default spelt out
            metrics.jsonl        a line for each epoch, and one for the held-out test
            tensorboard/         the same numbers, for `tensorboard --logdir runs`
            picture.png          task losses, gate usage, conflict of the tasks' gradients
            checkpoint.pt        after each epoch, for `train --resume`; gone when finished
            schema.json          the fitted feature schema
            vocabularies.npz     hashes of the vocabularies' values
            weights.pt           the network's best weights
            examples.npz         packed held-out rows, for parity and golden rows
            validation.parquet, test.parquet   scores and labels of held-out rows: `held_out.py`
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
from torch.utils.tensorboard import SummaryWriter

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
from model_export.models.outputs import TaskOutputs
from model_export.training import checkpoint, picture
from model_export.training.checkpoint import Checkpoint
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
    """Writes a run directory.

    Args:
        path: the directory; what was there before is removed, unless the run is resumed.
        config: of the run.
        resume: go on from the directory's checkpoint, if there is one.

    Raises:
        RunUnusable: something else is in the way, or the checkpoint is another configuration's.
    """

    def __init__(self, path: Path, config: Config, resume: bool = False) -> None:
        self.path = path
        self.checkpoint: Checkpoint | None = None
        self._tasks = [task.name for task in config.tasks]
        self._epochs: list[dict[str, Any]] = []
        if path.exists():
            if not (path / _CONFIG_FILE).is_file():
                raise RunUnusable(f"{path}: in the way of a run, and not a run directory")
            if resume:
                self.checkpoint = _checkpoint(path, config)
            shutil.rmtree(path)
        path.mkdir(parents=True)
        (path / _CONFIG_FILE).write_text(config_file.dump(config), encoding="utf-8")
        self._board = SummaryWriter(str(path / "tensorboard"))
        if self.checkpoint is not None:
            self.checkpoint.save(path)
            for epoch in self.checkpoint.epochs:
                self.epoch(epoch)

    def epoch(self, record: dict[str, Any]) -> None:
        """Append the record of an epoch to the metrics, the board and the picture."""
        self._append(record)
        self._epochs.append(record)
        number = record["number"]
        for group in ("losses", "weights"):
            for task, value in record[group].items():
                self._board.add_scalar(f"{group}/{task}", value, number)
        for task, metrics in record["validation"].items():
            for metric, value in metrics.items():
                if value is not None:
                    self._board.add_scalar(f"validation/{task}/{metric}", value, number)
        for gate, usage in record["gates"].items():
            for row, weights in enumerate(usage):
                for expert, weight in enumerate(weights):
                    self._board.add_scalar(f"gates/{gate}/{row}/expert_{expert}", weight, number)
        for row, cosines in enumerate(record["conflict"]):
            for column in range(row + 1, len(cosines)):
                pair = f"conflict/{self._tasks[row]}_{self._tasks[column]}"
                self._board.add_scalar(pair, cosines[column], number)
        self._board.flush()

    def test(self, metrics: Metrics) -> None:
        """Append the held-out test metrics."""
        self._append({"test": metrics})

    def _append(self, record: dict[str, Any]) -> None:
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
        """Write the picture, all that an export needs, and the summary last."""
        self._board.close()
        picture.draw(self._epochs, self._tasks, self.path / picture.FILE)
        torch.save(model.state_dict(), self.path / "weights.pt")
        (self.path / "schema.json").write_text(features.schema.model_dump_json(indent=1))
        vocabularies: dict[str, npt.NDArray[Any]] = dict(features.vocabularies)
        np.savez(self.path / "vocabularies.npz", allow_pickle=False, **vocabularies)
        np.savez(self.path / "examples.npz", allow_pickle=False, **vars(examples))
        for sample in samples:
            described = {_KEY: sample.key, _DISPLAY: json.dumps(sample.display)}
            table = sample.table.replace_schema_metadata(described)
            pq.write_table(table, self.path / f"{sample.entity}.parquet")
        (self.path / checkpoint.FILE).unlink(missing_ok=True)
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
    model = network(config, schema)
    try:
        model.load_state_dict(torch.load(path / "weights.pt", weights_only=True))
    except RuntimeError as error:
        raise RunUnusable(f"{path}: weights of another release; train again: {error}") from error
    model.eval()
    samples = tuple(
        _read_sample(path, entity) for entity in _SAMPLED if (path / f"{entity}.parquet").is_file()
    )
    return FinishedRun(path, config, features, model, examples, samples, summary)


def network(config: Config, schema: FeatureSchema) -> MultiTaskModel:
    """The network of a configuration, freshly initialised from torch's generator."""
    tasks = [task.served() for task in config.tasks]
    model = families.build(config.architecture, schema, tasks)
    model.outputs = TaskOutputs([task.output() for task in config.tasks])
    return model


def read_config(path: Path) -> Config:
    """The configuration of a run."""
    return config_file.load(path / _CONFIG_FILE)


def _checkpoint(path: Path, config: Config) -> Checkpoint | None:
    if read_config(path) != config:
        raise RunUnusable(
            f"{path}: the run there has another configuration; train without --resume to replace it"
        )
    return Checkpoint.load(path)


def _read_sample(path: Path, entity: Entity) -> EntitySample:
    table = pq.read_table(path / f"{entity}.parquet")
    described = table.schema.metadata
    display = tuple(json.loads(described[_DISPLAY]))
    return EntitySample(entity, table, described[_KEY].decode(), display)
