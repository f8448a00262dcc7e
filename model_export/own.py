"""Export of a torch module of your own, defined and trained wherever you like.

    features = FittedFeatures(schema, vocabularies)   # or model_export.data.fit.fit(...)
    encoder = features.encoder()                      # raw rows -> ids and numbers, as serving does
    ...                                               # train
    export_module(module, Path("bundle"), name="mine", features=features, tasks=tasks,
                  examples=examples)
    bundle.store.publish(Path("bundle"), Path("models"))

`examples/own_model/` does all of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bundle.manifest import Manifest, Task
from model_export.data.fit import FittedFeatures
from model_export.data.impressions import EntitySample
from model_export.errors import ModuleUnfit
from model_export.export import Contents, write_bundle
from model_export.parity import torch_scores
from model_export.stages import Network, OneStage, ThreeStages
from model_export.training.run_directory import Examples

_THREE = ("user_stage", "item_stage", "joint_stage")


def export_module(
    module: Network,
    target: Path,
    *,
    name: str,
    features: FittedFeatures,
    tasks: Sequence[Task],
    examples: Examples,
    samples: Sequence[EntitySample] = (),
    training: Mapping[str, Any] | None = None,
) -> Manifest:
    """Export a module as a bundle, checked against what torch gives; replaces `target`.

    Args:
        module: implements `ThreeStages` or `OneStage` of `model_export.stages`.
        name: of the model, and of its feature set.
        features: what it was trained with; the bundle encodes with the same.
        tasks: in the order of its score columns.
        examples: packed rows that the scores are compared over; a few become the golden rows that
            the service replays before it lets the version in.
        samples: tables of users and items for stores, demos and load tests.
        training: what the manifest says of the training, for people.

    Raises:
        ModuleUnfit: the module implements neither, or gives another number of scores than tasks.
        ParityFailed: onnxruntime's scores are not torch's.
    """
    if not isinstance(module, ThreeStages | OneStage):
        absent = [stage for stage in _THREE if not hasattr(module, stage)]
        raise ModuleUnfit(
            f"{type(module).__name__} has no {', '.join(absent)}, and no single_stage; implement "
            "all three or the one: see model_export.stages"
        )
    encoder, rows = features.encoder(), np.zeros(len(examples.items), np.int64)
    users = encoder.user(examples.users[:1], examples.contexts[:1])
    scores = torch_scores(module, users, encoder.item(examples.items), rows)
    if scores.shape != (expected := (len(examples.items), len(tasks))):
        raise ModuleUnfit(
            f"{type(module).__name__} gives scores {scores.shape} where {expected} are due: a row "
            f"an item, and a column for each of {', '.join(task.name for task in tasks)}"
        )
    contents = Contents(
        name=name,
        family=type(module).__name__,
        tasks=tuple(tasks),
        features=features,
        network=module,
        examples=examples,
        samples=tuple(samples),
        training=dict(training or {}),
    )
    return write_bundle(contents, target)
