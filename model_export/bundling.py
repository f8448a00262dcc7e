"""The last step of every export: what lies beside the graphs, and the manifest over all of it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from bundle.arrays import Golden
from bundle.manifest import (
    GOLDEN_FILE,
    MANIFEST_FILE,
    VOCABULARIES_FILE,
    Calibration,
    Manifest,
    Parity,
    Sample,
    Task,
    serialise,
)
from bundle.schema import Entity
from bundle.stages import SingleStage, Stages
from bundle.store import digest
from model_export.data.fit import FittedFeatures
from model_export.data.impressions import EntitySample


@dataclass(frozen=True)
class Description:
    """What a bundle says of its model.

    Attributes:
        name: of the model, and of its feature set.
        family: the architecture's name.
        training: for people.
        calibration: of the tasks that have one.
    """

    name: str
    family: str
    tasks: tuple[Task, ...]
    features: FittedFeatures
    samples: tuple[EntitySample, ...]
    training: Mapping[str, Any]
    calibration: Mapping[str, Calibration] = field(default_factory=dict, kw_only=True)


def complete(
    target: Path,
    described: Description,
    stages: Stages | SingleStage,
    parity: Parity,
    golden: Golden,
) -> Manifest:
    """Complete a directory that holds the graphs of `stages`, and no other files, to a bundle."""
    features = described.features
    np.savez(target / VOCABULARIES_FILE, allow_pickle=False, **dict(features.vocabularies))
    golden.save(target / GOLDEN_FILE)
    samples: dict[Entity, Sample] = {}
    for sample in described.samples:
        file = f"sample_{sample.entity}.parquet"
        pq.write_table(sample.table, target / file)
        samples[sample.entity] = Sample(file=file, key=sample.key, display=sample.display)
    manifest = Manifest(
        model=described.name,
        family=described.family,
        created_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        feature_set=described.name,
        features=features.schema,
        tasks=described.tasks,
        stages=stages,
        parity=parity,
        calibration=dict(described.calibration),
        samples=samples,
        files={path.name: digest(path) for path in sorted(target.iterdir())},
        training=dict(described.training),
    )
    (target / MANIFEST_FILE).write_bytes(serialise(manifest))
    return manifest
