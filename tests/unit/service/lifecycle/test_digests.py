"""Digests are taken once a machine, and anew whatever is done to a file."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bundle.manifest import FileDigest
from bundle.store import digest
from service.lifecycle import digests
from service.lifecycle.digests import Digests
from service.worker import ALONE, Worker


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read, as they are."""
    names: list[str] = []

    def noting(path: Path) -> FileDigest:
        names.append(path.name)
        return digest(path)

    monkeypatch.setattr(digests, "digest", noting)
    return names


def settled_file(directory: Path) -> Path:
    """A file that was written a little while ago."""
    path = directory / "joint.onnx"
    path.write_bytes(b"weights")
    settle()
    return path


def settle() -> None:
    time.sleep(2 * digests._TICK_NS / 1e9)


def workers(directory: Path) -> list[Digests]:
    run_dir = directory / "run"
    run_dir.mkdir()
    return [Digests(Worker(index, 2, run_dir)) for index in range(2)]


def test_a_file_is_read_once_by_all_workers(tmp_path: Path, taken: list[str]) -> None:
    path = settled_file(tmp_path)
    right = digest(path)
    first, second = workers(tmp_path)
    assert [each(path) for each in (first, first, second, second)] == [right] * 4
    assert taken == ["joint.onnx"]


def test_a_process_that_is_alone_remembers_too(tmp_path: Path, taken: list[str]) -> None:
    path, alone = settled_file(tmp_path), Digests(ALONE)
    assert alone(path) == alone(path) == digest(path)
    assert taken == ["joint.onnx"]


def rewritten_in_place(path: Path) -> None:
    """Another byte, and the times that can be set as they were."""
    before = path.stat()
    with path.open("r+b") as file:
        file.write(b"W")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"Weights")
    other.rename(path)


def truncated(path: Path) -> None:
    os.truncate(path, 3)


@pytest.mark.parametrize("change", [rewritten_in_place, replaced, truncated])
def test_a_changed_file_is_read_again(
    tmp_path: Path, taken: list[str], change: Callable[[Path], None]
) -> None:
    path = settled_file(tmp_path)
    first, second = workers(tmp_path)
    first(path)
    change(path)
    assert [first(path), second(path)] == [digest(path)] * 2
    assert len(taken) >= 2


def test_a_file_that_was_written_just_now_is_not_remembered(
    tmp_path: Path, taken: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "_TICK_NS", 3_600_000_000_000)  # the next change: the same time
    path, alone = tmp_path / "joint.onnx", Digests(ALONE)
    path.write_bytes(b"weights")
    alone(path)
    alone(path)
    assert len(taken) == 2


def test_a_file_that_changes_while_it_is_read_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, alone = settled_file(tmp_path), Digests(ALONE)

    def changing(read: Path) -> FileDigest:
        found = digest(read)
        rewritten_in_place(read)
        return found

    with monkeypatch.context() as while_read:
        while_read.setattr(digests, "digest", changing)
        alone(path)
    settle()
    assert alone(path) == digest(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Digests(ALONE)(tmp_path / "absent")
