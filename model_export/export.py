"""Export: a network with its features -> a complete bundle directory that the server can load."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from bundle.manifest import (
    GOLDEN_FILE,
    MANIFEST_FILE,
    VOCABULARIES_FILE,
    Manifest,
    Sample,
    Task,
    serialise,
)
from bundle.schema import Entity
from bundle.store import Golden, digest
from model_export import graphs, parity
from model_export.data.fit import FittedFeatures
from model_export.data.impressions import EntitySample
from model_export.models.base import MultiTaskModel
from model_export.training.run_directory import Examples, FinishedRun

_GOLDEN_USERS, _GOLDEN_ROWS = 3, 32


@dataclass(frozen=True)
class Contents:
    """What a bundle is made of.

    Attributes:
        name: of the model, and of its feature set.
        family: the architecture's name.
        examples: packed rows, for parity and golden rows.
        training: what the manifest says of the training, for people.
    """

    name: str
    family: str
    tasks: tuple[Task, ...]
    features: FittedFeatures
    network: MultiTaskModel
    examples: Examples
    samples: tuple[EntitySample, ...]
    training: Mapping[str, Any]


def contents_of(run: FinishedRun) -> Contents:
    """The contents of a finished run's bundle."""
    return Contents(
        name=run.config.model,
        family=run.config.architecture.family,
        tasks=tuple(task.served() for task in run.config.tasks if task.serve),
        features=run.features,
        network=run.model,
        examples=run.examples,
        samples=run.samples,
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
    """Write a bundle, replacing what is in `target`.

    Raises:
        ParityFailed: the graphs do not give torch's scores; nothing is left in `target`.
    """
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    try:
        return _write(contents, target)
    except BaseException:
        shutil.rmtree(target)
        raise


def _write(contents: Contents, target: Path) -> Manifest:
    features = contents.features
    stages = graphs.export_stages(contents.network, features.schema, target)
    sessions = parity.Graphs.open(target, stages)
    measured = parity.check(contents.network, sessions, features.encoder(), contents.examples)
    np.savez(target / VOCABULARIES_FILE, allow_pickle=False, **dict(features.vocabularies))
    _golden(contents).save(target / GOLDEN_FILE)
    samples: dict[Entity, Sample] = {}
    for sample in contents.samples:
        file = f"sample_{sample.entity}.parquet"
        pq.write_table(sample.table, target / file)
        samples[sample.entity] = Sample(file=file, key=sample.key, display=sample.display)
    manifest = Manifest(
        model=contents.name,
        family=contents.family,
        created_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        feature_set=contents.name,
        features=features.schema,
        tasks=contents.tasks,
        stages=stages,
        parity=measured,
        samples=samples,
        files={path.name: digest(path) for path in sorted(target.iterdir())},
        training=dict(contents.training),
    )
    (target / MANIFEST_FILE).write_bytes(serialise(manifest))
    return manifest


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
