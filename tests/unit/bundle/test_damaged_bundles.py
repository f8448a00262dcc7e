"""A bundle that is not as its manifest says is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.errors import (
    BundleError,
    DigestMismatch,
    FileMissing,
    FileUnsafe,
    ManifestInvalid,
)
from bundle.manifest import GOLDEN_FILE, MANIFEST_FILE, VOCABULARIES_FILE
from bundle.store import load
from tests.unit.bundle.tiny import FILES, describe, write_bundle

Damage = Callable[[Path], object]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "run" / "tiny")


def link_to_itself(path: Path) -> None:
    outside = path.parent.parent / f"outside-{path.name}"
    path.rename(outside)
    path.symlink_to(outside)


def to_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


@pytest.mark.parametrize("name", [*FILES, MANIFEST_FILE])
@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (link_to_itself, FileUnsafe),
        (to_directory, FileUnsafe),
        (Path.unlink, FileMissing),
        (flip_a_bit, BundleError),
        (truncate, BundleError),
        (lengthen, BundleError),
    ],
)
def test_a_damaged_file_is_refused(
    source: Path, name: str, damage: Damage, error: type[BundleError]
) -> None:
    damage(source / name)
    with pytest.raises(error) as caught:
        load(source)
    assert name in str(caught.value)
    if name != MANIFEST_FILE:
        assert isinstance(caught.value, FileUnsafe | FileMissing | DigestMismatch)


def test_there_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "nowhere", tmp_path, tmp_path / "file"):
        with pytest.raises(FileMissing):
            load(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "vocabularies.npz"),
        (b"not a zip archive", "vocabularies.npz"),
        (b"PK\x03\x04 not one either", "vocabularies.npz"),
    ],
)
def test_a_vocabulary_file_that_cannot_be_read_is_refused(
    source: Path, content: bytes, message: str
) -> None:
    """The digest is right: it was written so."""
    (source / VOCABULARIES_FILE).write_bytes(content)
    describe(source)
    with pytest.raises(ManifestInvalid, match=message):
        load(source)


def test_other_arrays_than_promised_are_refused(source: Path) -> None:
    np.savez(source / VOCABULARIES_FILE, other=np.zeros(3))
    describe(source)
    with pytest.raises(ManifestInvalid, match=r"vocabularies\.npz.*item\.id"):
        load(source)

    with (source / VOCABULARIES_FILE).open("wb") as file:
        np.save(file, np.zeros(3))
    describe(source)
    with pytest.raises(ManifestInvalid, match=r"vocabularies\.npz"):
        load(source)

    pickled: Any = {"item.id": np.array([{}], object)}
    with (source / VOCABULARIES_FILE).open("wb") as file:
        np.savez(file, **pickled)  # a pickle: never run
    describe(source)
    with pytest.raises(ManifestInvalid, match=r"vocabularies\.npz: .*pickle"):
        load(source)


def test_golden_rows_that_cannot_be_read_are_refused(source: Path) -> None:
    np.savez(source / GOLDEN_FILE, users=np.zeros(3))
    describe(source)
    with pytest.raises(ManifestInvalid, match=r"golden\.npz"):
        load(source).golden()


def test_a_vocabulary_of_another_size_is_refused(source: Path) -> None:
    smaller: Any = {"item.id": np.arange(3, dtype=np.uint64)}
    np.savez(source / VOCABULARIES_FILE, **smaller)
    describe(source)
    bundle = load(source)
    with pytest.raises(ManifestInvalid, match=r"item\.id: vocabulary is of size 3, expected 5"):
        bundle.encoder()
