"""A model directory under test, and what a version in it should answer.

The expected scores are computed from the files alone, by onnxruntime and the bundle's encoder:
nothing of the service has a part in them.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pyarrow.parquet as pq

from bundle import manifest, store
from bundle.schema import Entity
from bundle.stages import Stages

Array = npt.NDArray[Any]
MODEL = "synthetic"
TASKS = ("click", "like", "watch_seconds")


@dataclass(frozen=True)
class ModelsDirectory:
    """A model directory, and the trained versions that can be published into it."""

    path: Path
    trained: Path

    @classmethod
    def create(cls, path: Path, trained: Path) -> Self:
        """Version 1 and the formula of `trained`, in a new directory."""
        shutil.copytree(trained / MODEL / "1", path / MODEL / "1")
        shutil.copytree(trained / MODEL / "fusions", path / MODEL / "fusions")
        return cls(path, trained)

    @property
    def model(self) -> Path:
        """The directory of the model's versions."""
        return self.path / MODEL

    @property
    def fusion(self) -> Path:
        """The default formula's file."""
        return self.model / "fusions" / "default.yaml"

    def publish(self, trained_version: int) -> int:
        """Publish a trained version as the next one; returns the version it became."""
        return int(store.publish(self.trained / MODEL / str(trained_version), self.path).name)

    def copy_as_model(self, name: str, trained_version: int) -> str:
        """Publish a trained version as the first of another model; returns that model's name."""
        source = self.path.parent / f"{name}-source"
        shutil.copytree(self.trained / MODEL / str(trained_version), source)
        reseal(source, model=name)
        store.publish(source, self.path)
        shutil.copytree(self.model / "fusions", self.path / name / "fusions")
        return name

    def next_version(self) -> int:
        """The version that would be published next."""
        return store.versions(self.path, MODEL)[-1] + 1

    def expected(self, version: int) -> Expected:
        """What a version should answer."""
        return Expected(self.model / str(version))


def reseal(directory: Path, **changes: object) -> None:
    """Rewrite the manifest of an unpublished bundle: with `changes`, and new digests of its files.

    What comes out verifies, whatever was done to the files: only what is in them is wrong.
    """
    file = directory / manifest.MANIFEST_FILE
    old = manifest.parse(file.read_bytes())
    files = {name: store.digest(directory / name) for name in old.files}
    content = old.model_dump() | {"files": files} | changes
    file.write_bytes(manifest.serialise(manifest.Manifest.model_validate(content)))


class Expected:
    """The scores of one version, from its files alone."""

    def __init__(self, directory: Path) -> None:
        bundle = store.load(directory)
        self._encoder = bundle.encoder()
        self._rows = {
            entity: _by_id(directory / sample.file, sample.key)
            for entity, sample in bundle.manifest.samples.items()
        }
        stages = bundle.manifest.stages
        assert isinstance(stages, Stages)
        self._user, self._item, self._joint = (
            ort.InferenceSession(str(directory / stage.file), providers=["CPUExecutionProvider"])
            for stage in (stages.user, stages.item, stages.joint)
        )

    def ids(self, entity: Entity) -> list[str]:
        """The ids of the bundle's sample, in its order."""
        return list(self._rows[entity])

    def features(self, entity: Entity, entity_id: str) -> dict[str, Any]:
        """The stored features of a user or an item."""
        row, names = self._rows[entity][entity_id], self._encoder.layouts[entity].slots
        return {name: row[name] for name in names}

    def scores(
        self,
        user: Mapping[str, Any] | str,
        items: Sequence[Mapping[str, Any] | str],
        context: Mapping[str, Any] | None = None,
    ) -> Array:
        """Task scores [N, T], columns as `TASKS`; users and items are ids or feature values."""
        contexts = self._pack("context", [context or {}])
        users = self._encoder.user(self._pack("user", [user]), contexts)
        encoded = self._encoder.item(self._pack("item", items))
        feeds = {
            "user_tensor": _run(self._user, {"ids": users.ids, "numbers": users.numbers}),
            "item_tensor": _run(self._item, {"ids": encoded.ids, "numbers": encoded.numbers}),
            "user_row": np.zeros(len(items), np.int64),
        }
        return _run(self._joint, feeds)

    def _pack(self, entity: Entity, rows: Sequence[Mapping[str, Any] | str]) -> Array:
        layout = self._encoder.layouts[entity]
        known = self._rows.get(entity, {})
        found = [known.get(row, {}) if isinstance(row, str) else row for row in rows]
        columns = {name: [row.get(name) for row in found] for name in layout.slots}
        return layout.pack(columns, len(rows))


def fused(scores: Array, like_weight: float = 1.0) -> Array:
    """The synthetic model's formula, written once more: [N] of scores [N, T]."""
    click, like, watch_seconds = scores.astype(np.float64).T
    result: Array = click * (1 + like_weight * like) * np.log1p(watch_seconds)
    return result


def _by_id(path: Path, key: str) -> dict[str, dict[str, Any]]:
    return {str(row[key]): row for row in pq.read_table(path).to_pylist()}


def _run(session: ort.InferenceSession, feeds: Mapping[str, Array]) -> Array:
    wanted = {each.name: feeds[each.name] for each in session.get_inputs()}
    (output,) = session.run(None, wanted)
    result: Array = output
    return result
