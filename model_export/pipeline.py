"""The way of an experiment: data -> features -> training -> run -> bundle -> published version."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console

from bundle import store
from bundle.encoding import Encoder
from bundle.stages import Stages
from model_export import config as config_file
from model_export import fusions, gain, report
from model_export.config import Config
from model_export.data import loaders
from model_export.data.batches import EncodedRows
from model_export.data.encoded import EncodedSet, encode, pack
from model_export.data.fit import FittedFeatures, fit
from model_export.data.impressions import Feed, Part
from model_export.data.streamed import StreamedRows
from model_export.data.table.loader import TablePart
from model_export.data.training_labels import scaling_labels
from model_export.errors import DataInvalid
from model_export.export import contents_of, write_bundle
from model_export.models.base import MultiTaskModel
from model_export.parity import Graphs
from model_export.training import device as devices
from model_export.training import processes, run_directory, trainer
from model_export.training.evaluation import Predictions, metrics_of, predict
from model_export.training.held_out import HeldOut, PartName
from model_export.training.processes import Processes
from model_export.training.run_directory import Examples, RunWriter, Summary

_EXAMPLE_USERS, _EXAMPLE_ROWS = 16, 512
_SILENT = Console(quiet=True)


def run(config: Config | Path, runs: Path, models: Path, console: Console = _SILENT) -> Path:
    """Train, export and publish; returns the published directory.

    Args:
        config: a configuration, or the path of one.
        runs: where the run directory goes.
        models: the model directory to publish into.
        console: where progress and results go; nowhere by default.

    Raises:
        TrainingError: configuration, data or export is wrong; says what.
    """
    if isinstance(config, Path):
        config = config_file.load(config)
    processes.refuse_several("run")
    directory = train(config, runs / config.name, console)
    export(directory, console)
    return publish(directory, models, console)


def train(
    config: Config, directory: Path, console: Console = _SILENT, *, resume: bool = False
) -> Path:
    """Train one configuration into a run directory; returns the directory.

    Under torchrun all processes train together, and the first one writes.

    Args:
        resume: go on after the last epoch of an interrupted training of the same configuration.

    Raises:
        TrainingError: the data cannot be had, or does not fit the configuration.
    """
    device = devices.choose(config.training.device)
    with devices.threads(config.training.threads), processes.joined(device) as group:
        _train(config, directory, console if group.is_first else _SILENT, resume, device, group)
    return directory


@dataclass(frozen=True)
class Prepared:
    """The data of an experiment, read and encoded.

    Attributes:
        scaling_labels: of each task, what `TaskOutputs.fit` takes.
    """

    feed: Feed[Part]
    features: FittedFeatures
    train: EncodedRows
    validation: EncodedRows
    test: EncodedRows
    scaling_labels: list[npt.NDArray[np.float32]]


def prepare(config: Config) -> Prepared:
    """Read the data, fit the features on its training part, encode all parts.

    Raises:
        DataInvalid: the data cannot be had, or does not fit the configuration.
    """
    feed = loaders.load(config.data, config.features, config.tasks)
    if config.architecture.position_bias and not feed.train.has_positions:
        raise DataInvalid(
            f"architecture.position_bias: {config.data.loader} does not say at which position a "
            "candidate was shown"
        )
    features = fit(config.features, feed.train)
    encoder = features.encoder()
    train_rows, validation_rows, test_rows = (
        _encoded(part, config, encoder) for part in (feed.train, feed.validation, feed.test)
    )
    labels = scaling_labels(config.tasks, train_rows, feed.train.origin)
    return Prepared(feed, features, train_rows, validation_rows, test_rows, labels)


def _encoded(part: Part, config: Config, encoder: Encoder) -> EncodedRows:
    if isinstance(part, TablePart) and part.streams:
        workers = part.table.options.workers
        return StreamedRows(part, config.tasks, encoder, workers)
    chunks = [encode(chunk, config.tasks, encoder) for chunk in part.chunks()]
    return EncodedSet.concatenate(chunks)


def new_model(config: Config, prepared: Prepared, device: torch.device) -> MultiTaskModel:
    """The network of a configuration, initialised by its seed, with the scales of its labels."""
    torch.manual_seed(config.seed)
    model = run_directory.network(config, prepared.features.schema).to(device)
    model.outputs.fit(prepared.scaling_labels)
    return model


def _train(
    config: Config,
    directory: Path,
    console: Console,
    resume: bool,
    device: torch.device,
    group: Processes,
) -> None:
    prepared = prepare(config)
    feed = prepared.feed
    report.print_sizes(feed, console)
    writer = RunWriter(directory, config, resume) if group.is_first else None
    resumed = group.from_first(writer.checkpoint if writer else None)
    started = time.monotonic()
    epochs = len(resumed.epochs) if resumed else 0
    with torch.random.fork_rng():
        model = new_model(config, prepared, device)
        for epoch in trainer.train(
            model,
            config,
            prepared.train,
            prepared.validation,
            console,
            processes=group,
            checkpoints=directory,
            resumed=resumed,
        ):
            if writer:
                writer.epoch(asdict(epoch))
            epochs = epoch.number
    if writer is None:
        return
    tested = predict(model, prepared.test)
    test = metrics_of([task.served() for task in config.tasks], tested)
    writer.test(test)
    names = [task.name for task in config.tasks]
    held_out: dict[PartName, tuple[Predictions, Part]] = {
        "validation": (predict(model, prepared.validation), feed.validation),
        "test": (tested, feed.test),
    }
    for name, (found, rows) in held_out.items():
        HeldOut.of(found, names, rows, prepared.features).write(directory, name)
    summary = Summary(
        dataset=feed.description,
        sizes=feed.sizes(),
        epochs=epochs,
        seconds=round(time.monotonic() - started, 2),
        test=test,
    )
    examples = _examples(feed.test, prepared.features.encoder())
    writer.finish(model.cpu(), prepared.features, examples, feed.samples(), summary)
    report.print_summary(config, summary, console)


def export(directory: Path, console: Console = _SILENT) -> Path:
    """Export a finished run into `bundle/` inside its directory; returns that.

    Raises:
        RunUnusable: there is no finished training.
        ParityFailed: the exported graphs do not give torch's scores.
    """
    processes.refuse_several("export")
    target = directory / "bundle"
    contents = contents_of(run_directory.read(directory))
    manifest = write_bundle(contents, target)
    report.print_parity(manifest.parity, console)
    if isinstance(manifest.stages, Stages):
        graphs = Graphs.open(target, manifest.stages)
        gained = gain.measure(graphs, contents.features.encoder(), contents.examples)
        report.print_gain(gained, console)
    return target


def publish(directory: Path, models: Path, console: Console = _SILENT) -> Path:
    """Publish the exported bundle of a run, and its fusion formula if the model has none.

    Raises:
        BundleError: the bundle is not there or does not verify.
    """
    published = store.publish(directory / "bundle", models)
    console.print(f"published: {published}", highlight=False, soft_wrap=True)
    fusion = run_directory.read_config(directory).fusion
    if fusion is not None:
        file = fusions.default_file(published.parent)
        written = fusions.write_default(fusion, file)
        note = "" if written else " is there already and stays as it is"
        console.print(f"formula:   {file}{note}", highlight=False, soft_wrap=True)
    return published


def _examples(feed_part: Part, encoder: Encoder) -> Examples:
    """Rows spread evenly over a part's first chunk: their impressions and their items."""
    part = next(feed_part.chunks())
    rows = np.linspace(0, len(part) - 1, _EXAMPLE_ROWS).astype(np.int64)
    impressions = part.user_row[rows[:: _EXAMPLE_ROWS // _EXAMPLE_USERS]]
    return Examples(
        users=pack(part, "user", encoder)[impressions],
        contexts=pack(part, "context", encoder)[impressions],
        items=pack(part, "item", encoder)[part.item_row[rows]],
    )
