"""The model directory: versions appear whole or not at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.errors import (
    DigestMismatch,
    VersionExists,
)
from bundle.manifest import MANIFEST_FILE
from bundle.store import digest, load, model_names, publish, versions
from tests.unit.bundle.tiny import FILES, ITEM_IDS, reference_scores, write_bundle


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "run" / "tiny")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def test_a_bundle_is_loaded_whole(source: Path) -> None:
    bundle = load(source)
    assert bundle.manifest.model == "tiny"
    assert list(bundle.vocabularies) == ["item.id"]
    golden, encoder = bundle.golden(), bundle.encoder()
    users = encoder.user(golden.users, golden.contexts)
    scores = reference_scores(users, encoder.item(golden.items), golden.user_row, tasks=2)
    np.testing.assert_array_equal(scores, golden.scores)
    assert golden.user_row.dtype == np.int64
    assert len(bundle.vocabularies["item.id"]) == len(ITEM_IDS)


def test_versions_are_counted_up(source: Path, models: Path) -> None:
    assert publish(source, models) == models / "tiny" / "1"
    assert publish(source, models) == models / "tiny" / "2"
    assert publish(source, models, version=12) == models / "tiny" / "12"
    assert publish(source, models) == models / "tiny" / "13"
    assert publish(source, models, version=5) == models / "tiny" / "5"
    assert versions(models, "tiny") == [1, 2, 5, 12, 13]
    assert model_names(models) == ["tiny"]


def test_a_published_version_is_the_source_with_its_number(source: Path, models: Path) -> None:
    published = load(publish(source, models, version=7))
    original = load(source)
    assert published.manifest.version == 7
    assert original.manifest.version == 0
    assert published.manifest.model_copy(update={"version": 0}) == original.manifest
    assert names(published.path) == sorted((*FILES, MANIFEST_FILE))
    for name in FILES:
        assert (published.path / name).read_bytes() == (source / name).read_bytes()
    assert published.path.stat().st_mode & 0o777 == 0o755  # others may serve it


def test_only_files_of_the_manifest_are_published(source: Path, models: Path) -> None:
    (source / "notes.txt").write_text("private")
    assert "notes.txt" not in names(publish(source, models))


def test_a_published_version_is_never_overwritten(source: Path, models: Path) -> None:
    target = publish(source, models)
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    other = write_bundle(source.parent / "other", bias=1.0)
    with pytest.raises(VersionExists, match="published already"):
        publish(other, models, version=1)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before
    assert names(models / "tiny") == ["1"]


def test_the_later_of_two_publishers_is_refused(
    source: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have found the version free; the other one renames first."""
    other = write_bundle(source.parent / "other", bias=1.0)
    copy = shutil.copyfile

    def overtaken(*arguments: Any) -> Any:
        monkeypatch.setattr(shutil, "copyfile", copy)
        publish(other, models, version=1)
        return copy(*arguments)

    monkeypatch.setattr(shutil, "copyfile", overtaken)
    with pytest.raises(VersionExists, match="by someone else meanwhile"):
        publish(source, models, version=1)
    assert load(models / "tiny" / "1").manifest.files == load(other).manifest.files
    assert names(models / "tiny") == ["1"]


@pytest.mark.parametrize("copies", range(len(FILES)))
@pytest.mark.parametrize("failure", [OSError("disk full"), KeyboardInterrupt()])
def test_an_interrupted_publish_leaves_nothing(
    source: Path,
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
    copies: int,
    failure: BaseException,
) -> None:
    publish(source, models)
    copy = shutil.copyfile
    seen: list[list[int]] = []

    def failing(*arguments: Any) -> Any:
        seen.append(versions(models, "tiny"))
        if len(seen) > copies:
            raise failure
        return copy(*arguments)

    monkeypatch.setattr(shutil, "copyfile", failing)
    with pytest.raises(type(failure)):
        publish(source, models)
    assert len(seen) == copies + 1
    assert all(visible == [1] for visible in seen)
    assert names(models / "tiny") == ["1"]


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_publish_that_fails_at_its_end_leaves_nothing(
    source: Path, models: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def failing(*arguments: object) -> None:
        raise OSError("gone")

    owner: object = os if call == "fsync" else Path
    monkeypatch.setattr(owner, call, failing)
    with pytest.raises((OSError, VersionExists)):
        publish(source, models)
    monkeypatch.undo()
    assert versions(models, "tiny") == []
    assert names(models / "tiny") == []


def test_everything_is_on_disk_before_the_version_appears(
    source: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, list[int]]] = []
    fsync = os.fsync

    def recorded(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        synced.append((path.name, versions(models, "tiny")))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recorded)
    publish(source, models)
    before = [name for name, visible in synced if visible == []]
    assert {*FILES, MANIFEST_FILE} <= set(before)
    assert any(name.startswith(".publishing-") for name in before)
    assert [name for name, visible in synced if visible == [1]] == ["tiny"]


def test_a_source_that_does_not_verify_is_not_published(source: Path, models: Path) -> None:
    (source / "item.onnx").write_bytes(b"other")
    with pytest.raises(DigestMismatch):
        publish(source, models)
    assert not models.exists()


def test_what_is_not_a_version_is_ignored(models: Path) -> None:
    model = models / "tiny"
    for name in ("2", "10", "0", "-1", "1.5", "v3", "٣", "²", ".publishing-x", "fusions", "1e3"):
        (model / name).mkdir(parents=True)
    (models / "empty").mkdir()
    for name in (".snapshot", "lost+found", "a b"):
        (models / name / "1").mkdir(parents=True)
    (models / "README").write_text("not a model")
    assert versions(models, "tiny") == [2, 10]
    assert versions(models, "empty") == []
    assert versions(models, "README") == []
    assert versions(models, "nothing") == []
    assert model_names(models) == ["tiny"]
    assert model_names(models / "nowhere") == []


def test_digest(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    found = digest(path)
    assert found.bytes == 3
    assert found.sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
