"""The arrays of a bundle: golden rows and vocabularies, read from files that may be anything."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bundle.errors import ArrayInvalid, BundleError, ManifestInvalid
from bundle.manifest import Manifest
from bundle.rows import RowLayout, Rows
from bundle.schema import ENTITIES, FeatureSchema
from bundle.vocabulary import Vocabularies

_DEFLATE_LIMIT = 1032
"""No byte of a deflated file becomes more bytes than this."""


@dataclass(frozen=True)
class Golden:
    """Raw inputs and the scores torch gave for them.

    Attributes:
        users, contexts: [U] packed rows. items: [N] packed rows.
        user_row: int64 [N], the user each item row is scored for.
        scores: float32 [N, T].
    """

    users: Rows
    contexts: Rows
    items: Rows
    user_row: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]

    def save(self, path: Path) -> None:
        """Write to `path` as npz."""
        np.savez(path, **vars(self))


def read_golden(path: Path, manifest: Manifest) -> Golden:
    """The golden rows of a bundle.

    Raises:
        ManifestInvalid: the file is unreadable.
        ArrayInvalid: an array is not of the type and shape that `Golden` says.
    """
    golden = Golden(**_read_npz(path, Golden.__dataclass_fields__))
    users, rows = golden.users.size, golden.items.size
    layouts = {entity: RowLayout(manifest.features, entity).dtype for entity in ENTITIES}
    expected = {
        "users": ((users,), layouts["user"]),
        "contexts": ((users,), layouts["context"]),
        "items": ((rows,), layouts["item"]),
        "user_row": ((rows,), np.dtype(np.int64)),
        "scores": ((rows, len(manifest.tasks)), np.dtype(np.float32)),
    }
    for name, (shape, dtype) in expected.items():
        array = getattr(golden, name)
        if (array.shape, array.dtype) != (shape, dtype):
            raise ArrayInvalid(
                f"{path.name}: {name} is {array.dtype} {array.shape}, expected {dtype} {shape}"
            )
    if not rows or golden.user_row.min() < 0 or golden.user_row.max() >= users:
        raise ArrayInvalid(f"{path.name}: user_row: none, or one of a user who is not there")
    return golden


def read_vocabularies(path: Path, features: FeatureSchema) -> Vocabularies:
    """The vocabularies of a bundle, uint64 [size] each; whether sizes are right is not looked at.

    Raises:
        ManifestInvalid: the file is unreadable, or lacks one.
        ArrayInvalid: one is no column of hashes.
    """
    vocabularies = _read_npz(path, [owner.key for owner in features.vocabulary_owners()])
    for name, array in vocabularies.items():
        if array.dtype != np.uint64 or array.ndim != 1:
            raise ArrayInvalid(
                f"{path.name}: {name} is {array.dtype} {array.shape}, expected uint64 (size,)"
            )
    return vocabularies


def _read_npz(path: Path, names: Collection[str]) -> dict[str, npt.NDArray[Any]]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            for name in names:
                _check_declared(archive.zip, f"{name}.npy", path)
            return {name: archive[name] for name in names}
    except BundleError:
        raise
    except Exception as error:  # zip, deflate and numpy's header parser share no base class
        raise ManifestInvalid(f"{path.name}: {error}") from error


def _check_declared(archive: zipfile.ZipFile, member: str, path: Path) -> None:
    """Refuse an array that would need more memory than its file can hold values for."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0
        if version != (1, 0):
            header = np.lib.format.read_array_header_2_0
        shape, _, dtype = header(file)
    declared = math.prod(shape) * dtype.itemsize
    if declared > min(archive.getinfo(member).file_size, _DEFLATE_LIMIT * path.stat().st_size):
        raise ArrayInvalid(
            f"{path.name}: {member} declares {declared:,} bytes, more than the file can hold"
        )
