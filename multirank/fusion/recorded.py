"""A recorded request to fuse offline: the answer of /score or /rank, or the request itself.

An answer has every task's score of the candidates that were answered, and no features; a request
is scored here and now, by a published version with the features of its own sample.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from multirank.fusion.errors import FusionCommandError

if TYPE_CHECKING:  # onnxruntime is only needed to score
    from bundle.store import Bundle
    from service.values import Query

_MOST_CANDIDATES = 100_000


@dataclass(frozen=True)
class Recorded:
    """Candidates with their scores, ready to be fused.

    Attributes:
        source: what to call it.
        ids: [N].
        tasks: names of the T tasks.
        scores: float32 [N, T].
        features: what a formula may use: [N] for `item.*`, else one number.
    """

    source: str
    ids: Sequence[str | int]
    tasks: tuple[str, ...]
    scores: npt.NDArray[np.float32]
    features: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)


def read_recorded(file: Path, bundle: Bundle | None) -> Recorded:
    """Read a JSON file that holds a request or an answer.

    Args:
        bundle: the version that scores a request; answers need none.

    Raises:
        FusionCommandError: the file is neither; says what is missing.
    """
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise FusionCommandError(f"{file}: {error.strerror}") from error
    except ValueError as error:
        raise FusionCommandError(f"{file}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise FusionCommandError(f"{file}: expected an answer of /score or /rank, or a request")
    if "candidates" in content:
        if bundle is None:
            raise FusionCommandError(
                f"{file}: a request; name the --model that scores it, or give an answer of /score"
            )
        return _score(file, content, bundle)
    try:
        return _answer(str(file), content)
    except (KeyError, TypeError, ValueError) as error:
        raise FusionCommandError(
            f"{file}: neither an answer of /score or /rank nor a request: {error!r}"
        ) from error


def _answer(source: str, content: Mapping[str, Any]) -> Recorded:
    if "items" in content:
        items = content["items"]
        ids = [item["id"] for item in items]
        columns = {task: [item["tasks"][task] for item in items] for task in items[0]["tasks"]}
    else:
        ids, columns = content["ids"], content["tasks"]
    if not ids or not columns:
        raise ValueError("no candidates, or no tasks")
    scores = np.array([columns[task] for task in columns], np.float32).T  # None becomes NaN
    if scores.shape != (len(ids), len(columns)):
        raise ValueError(f"{len(ids)} ids, scores {scores.shape}")
    return Recorded(source, ids, tuple(columns), scores)


def _score(file: Path, content: dict[str, Any], bundle: Bundle) -> Recorded:
    from service.errors import ServiceError
    from service.queries import parse_query

    content = {name: value for name, value in content.items() if name != "fusion"}
    try:
        query, _ = parse_query(content, "offline", time.monotonic(), 60.0, _MOST_CANDIDATES)
        return asyncio.run(_scored(str(file), query, bundle))
    except ServiceError as error:
        raise FusionCommandError(f"{file}: {error.detail}") from error


async def _scored(source: str, query: Query, bundle: Bundle) -> Recorded:
    from service.features.embedded import EmbeddedStore, load_embedded
    from service.features.source import FeatureSource
    from service.inputs import Inputs
    from service.metrics import Metrics
    from service.scoring.stages import open_model

    manifest, encoder, metrics = bundle.manifest, bundle.encoder(), Metrics()
    store = EmbeddedStore()
    load_embedded(store, bundle, encoder, {"user": None, "item": None})
    features = FeatureSource(store, 60.0, {"": "error"}, 1 << 26, 60.0, 0.0, metrics)
    inputs = Inputs(query, encoder)
    fetched = await features.fetch(
        manifest.feature_set, encoder.layouts, query.user_key, query.item_keys, 60.0
    )
    inputs.complete(fetched)
    users, items = inputs.sides()
    model = open_model(bundle, encoder, 1, 0, metrics)
    scores = model.score(users, [items], np.zeros(len(items), np.int64))
    usable = [n for n, kind in manifest.features.kinds().items() if kind in NUMERIC_KINDS]
    name = f"{source}, scored by {manifest.model} version {manifest.version}"
    return Recorded(
        name, query.item_ids, manifest.task_names, scores, inputs.fusion_features(usable)
    )


NUMERIC_KINDS = ("number", "bucketised")
