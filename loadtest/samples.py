"""What is asked: `/rank` requests with ids drawn from the sample that a model was published with.

Users, candidates and context values are drawn uniformly. That is hard on caches and kind to no one:
real traffic repeats its popular items, so a cache does better there than here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow.parquet as pq

from bundle import store
from bundle.errors import BundleError
from bundle.schema import Bucketised, DenseVector, Entity, Feature, IdList, Number
from bundle.store import Bundle

Format = Literal["rows", "columns"]
_MADE_UP_IDS = 10
_MADE_UP_LIST_LENGTH = 5


class SampleUnusable(Exception):
    """No requests can be drawn; the message says what is missing."""


@dataclass(frozen=True)
class Asked:
    """One request, and what a right answer to it must hold.

    Attributes:
        body: the JSON that is sent.
        request_id: to be echoed.
        candidates: the ids to be ranked, all different.
        tasks: names of all scores.
        format: of the answer.
    """

    body: bytes
    request_id: str
    candidates: list[str | int]
    model: str
    tasks: tuple[str, ...]
    format: Format


def newest(models: Path, model: str | None) -> Bundle:
    """The newest version of a model; of the only one there is when `model` is None.

    Raises:
        SampleUnusable: there is no such model, several to choose from, or it does not verify.
    """
    published = store.model_names(models)
    if model is None and len(published) > 1:
        raise SampleUnusable(f"{models}: name one with --model: {', '.join(published)}")
    name = model if model is not None else next(iter(published), None)
    if name is None or name not in published:
        wanted = f"no model {name!r}" if name else "no published model"
        raise SampleUnusable(f"{models}: {wanted}; published: {', '.join(published) or 'none'}")
    try:
        return store.load(models / name / str(store.versions(models, name)[-1]))
    except BundleError as error:
        raise SampleUnusable(f"{models / name}: {error}") from error


class RequestSource:
    """Draws requests for one model.

    Args:
        bundle: whose sample names users and items, and whose schema the context's features.
        candidates: items in each request.
        answer_format: "columns" is the fast form, "rows" the API's default.
        seed: the same seed draws the same requests.

    Raises:
        SampleUnusable: the bundle has no sample, or fewer items than `candidates`.
    """

    def __init__(
        self, bundle: Bundle, candidates: int, answer_format: Format, seed: int = 0
    ) -> None:
        self._model = bundle.manifest.model
        self._tasks = bundle.manifest.task_names
        self._format = answer_format
        self.candidates = candidates
        self._users = _sample_ids(bundle, "user")
        self._items = _sample_ids(bundle, "item")
        if candidates > len(self._items):
            raise SampleUnusable(
                f"{self._model}: {candidates} distinct candidates asked for, the sample has "
                f"{len(self._items)} items"
            )
        self._context = [(f.name, _drawer(f)) for f in bundle.manifest.features.of("context")]
        self._rng = np.random.default_rng(seed)
        self._names = _counted(f"loadtest-{seed}-")

    def draw(self) -> Asked:
        """The next request."""
        rng = self._rng
        picked = rng.choice(len(self._items), self.candidates, replace=False)
        ids = self._items[picked].tolist()
        request_id = next(self._names)
        request: dict[str, Any] = {
            "request_id": request_id,
            "model": self._model,
            "user": {"id": self._users[rng.integers(len(self._users))]},
            "candidates": {"ids": ids},
            "format": self._format,
        }
        if self._context:
            request["context"] = {name: draw(rng) for name, draw in self._context}
        body = orjson.dumps(request)
        return Asked(body, request_id, ids, self._model, self._tasks, self._format)


def _counted(prefix: str) -> Iterator[str]:
    count = 0
    while True:
        count += 1
        yield f"{prefix}{count}"


def _sample_ids(bundle: Bundle, entity: Entity) -> npt.NDArray[np.object_]:
    sample = bundle.manifest.samples.get(entity)
    if sample is None:
        raise SampleUnusable(f"{bundle.path}: the bundle has no sample of {entity} ids")
    table = pq.read_table(bundle.path / sample.file, columns=[sample.key])
    ids = dict.fromkeys(table.column(sample.key).to_pylist())
    if not ids:
        raise SampleUnusable(f"{bundle.path / sample.file}: the sample is empty")
    return np.array(list(ids), dtype=object)


def _drawer(feature: Feature) -> Callable[[np.random.Generator], Any]:
    """Draws plausible raw values of a context feature.

    A bundle keeps the hashes of its vocabularies, not their values, so ids are made up: they are
    looked up like any other and read as out of vocabulary.
    """
    match feature:
        case Number():
            return lambda rng: float(rng.normal(feature.mean, feature.std))
        case Bucketised():
            edges = (feature.boundaries[0] - 1.0, *feature.boundaries, feature.boundaries[-1] + 1.0)
            buckets = list(pairwise(edges))
            return lambda rng: float(rng.uniform(*buckets[rng.integers(len(buckets))]))
        case DenseVector():
            return lambda rng: rng.normal(size=feature.dimension).tolist()
        case IdList():
            length = min(feature.max_length, _MADE_UP_LIST_LENGTH)
            return lambda rng: [f"id-{n}" for n in rng.integers(_MADE_UP_IDS, size=length)]
    return lambda rng: f"id-{rng.integers(_MADE_UP_IDS)}"
