"""Export: a network with its features -> a complete bundle directory that the server can load."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bundle.arrays import Golden
from bundle.manifest import Manifest
from model_export import graphs, parity
from model_export.bundling import Description, complete
from model_export.calibration.fitting import fit_calibration
from model_export.calibration.outputs import CalibratedOutputs
from model_export.stages import Network
from model_export.training.run_directory import Examples, FinishedRun

_GOLDEN_USERS, _GOLDEN_ROWS = 3, 32


@dataclass(frozen=True)
class Contents(Description):
    """What a bundle is made of.

    Attributes:
        examples: packed rows, for parity and golden rows.
    """

    network: Network
    examples: Examples


def contents_of(run: FinishedRun) -> Contents:
    """The contents of a finished run's bundle.

    Raises:
        CalibrationFailed: the held-out rows of a task do not allow its calibration.
    """
    calibration = fit_calibration(run.config.tasks, run.path)
    if calibration:
        curves = {place: curve for place, (curve, _) in calibration.items()}
        run.model.outputs = CalibratedOutputs(run.model.outputs, curves)
    return Contents(
        name=run.config.model,
        family=run.config.architecture.family,
        tasks=tuple(task.served() for task in run.config.tasks if task.serve),
        features=run.features,
        network=run.model,
        examples=run.examples,
        samples=run.samples,
        calibration={
            run.config.tasks[place].name: described for place, (_, described) in calibration.items()
        },
        training={
            "dataset": run.summary.dataset,
            "sizes": run.summary.sizes,
            "epochs": run.summary.epochs,
            "seconds": run.summary.seconds,
            "held_out": run.summary.test,
            "config": run.config.model_dump(mode="json"),
        },
    )


def write_bundle(contents: Contents, target: Path) -> Manifest:
    """Write a bundle, replacing the one in `target` once the new one is whole.

    Raises:
        ParityFailed: the graphs do not give torch's scores; `target` stays as it is.
    """
    unfinished = target.with_name(f".{target.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)  # of an export that was killed
    unfinished.mkdir(parents=True)
    try:
        manifest = _write(contents, unfinished)
        shutil.rmtree(target, ignore_errors=True)
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return manifest


def _write(contents: Contents, target: Path) -> Manifest:
    features = contents.features
    stages = graphs.export_stages(contents.network, features.schema, target)
    sessions = parity.Graphs.open(target, stages)
    measured = parity.check(contents.network, sessions, features.encoder(), contents.examples)
    return complete(target, contents, stages, measured, _golden(contents))


def _golden(contents: Contents) -> Golden:
    """Held-out rows and torch's scores, for the server to replay before it lets the version in."""
    encoder, examples = contents.features.encoder(), contents.examples
    users, contexts = examples.users[:_GOLDEN_USERS], examples.contexts[:_GOLDEN_USERS]
    items = examples.items[:_GOLDEN_ROWS]
    user_row = np.arange(len(items), dtype=np.int64) % len(users)
    scores = parity.torch_scores(
        contents.network, encoder.user(users, contexts), encoder.item(items), user_row
    )
    return Golden(users=users, contexts=contexts, items=items, user_row=user_row, scores=scores)
