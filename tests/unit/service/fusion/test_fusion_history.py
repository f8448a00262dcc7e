"""The history: each content once, each change one line, and what was can be had back."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest

from service.fusion.directory import load_fusions
from service.fusion.errors import FusionError
from service.fusion.formula import Fusion
from service.fusion.history import History


def write(directory: Path, **files: str) -> dict[str, Fusion]:
    for name, text in files.items():
        (directory / f"{name}.yaml").write_text(text)
    return dict(load_fusions(directory))


def record(directory: Path, **files: str) -> dict[str, Fusion]:
    """Write files and note all of the directory as live."""
    fusions = write(directory, **files)
    for name, fusion in fusions.items():
        History(directory).record(name, fusion.version, fusion.sources)
    return fusions


def versions(directory: Path, name: str) -> list[str]:
    return [entry.version for entry in History(directory).entries(name)]


def test_a_line_for_each_change_and_each_content_once(tmp_path: Path) -> None:
    first = record(tmp_path, default="formula: click\n")["default"]
    assert record(tmp_path, default="formula: click\n")["default"] == first
    second = record(tmp_path, default="formula: like\n")["default"]
    record(tmp_path, default="formula: click\n")

    assert versions(tmp_path, "default") == [first.version, second.version, first.version]
    contents = [path.read_text() for path in (tmp_path / ".history").glob("*.yaml")]
    assert sorted(contents) == ["formula: click\n", "formula: like\n"]
    newest = History(tmp_path).entries("default")[-1]
    assert (newest.by, newest.at[-6:]) == ("file", "+00:00")
    assert History(tmp_path).names() == ["default"]
    assert list(load_fusions(tmp_path)) == ["default"]


def test_nothing_is_known_of_a_new_directory(tmp_path: Path) -> None:
    assert History(tmp_path).entries("default") == []
    assert History(tmp_path).names() == []
    assert list(tmp_path.iterdir()) == []


def test_a_comment_is_no_version(tmp_path: Path) -> None:
    record(tmp_path, default="formula: click\n")
    record(tmp_path, default="# for the feed\nformula: click\nowner: feed\n")
    assert len(versions(tmp_path, "default")) == 1


def test_an_heir_has_a_line_for_a_change_of_its_ancestor_too(tmp_path: Path) -> None:
    heir = "inherits: default\nweights: {w: 2}\n"
    record(tmp_path, default="formula: click * w\nweights: {w: 1}\n", heir=heir)
    record(tmp_path, default="formula: like * w\nweights: {w: 1}\n")
    assert len(versions(tmp_path, "heir")) == 2
    was = History(tmp_path).fusion(History(tmp_path).entries("heir")[0], "heir")
    assert (was.file.formula, was.file.weights["w"].default) == ("click * w", 2)


def test_what_was_comes_back_byte_for_byte_or_says_the_same_without_ancestors(
    tmp_path: Path,
) -> None:
    text = "# mine\ninherits: default\nweights: {w: {default: 0.1, minimum: 0, maximum: 1e-1}}\n"
    old = record(tmp_path, default="formula: click ** w\nweights: {w: 1}\n", heir=text)["heir"]
    record(tmp_path, heir="formula: like\n")
    history = History(tmp_path)
    entry = history.entries("heir")[0]
    current = {name: fusion.sources[name] for name, fusion in load_fusions(tmp_path).items()}
    assert history.restored(entry, "heir", current) == (text.encode(), True)

    current |= write(tmp_path, default="formula: like ** w\nweights: {w: 1}\n")["default"].sources
    content, as_it_was = history.restored(entry, "heir", current)
    assert not as_it_was
    assert b"inherits" not in content
    assert write(tmp_path, heir=content.decode())["heir"].version == old.version


def test_a_damaged_history_is_named(tmp_path: Path) -> None:
    record(tmp_path, default="formula: click\n")
    history = History(tmp_path)
    (entry,) = history.entries("default")
    (kept,) = (tmp_path / ".history").glob("*.yaml")
    kept.write_text("formula: like\n")
    with pytest.raises(FusionError, match="changed since it was kept"):
        history.fusion(entry, "default")
    (tmp_path / ".history" / "default.jsonl").write_text('{"at": 1}\n')
    with pytest.raises(FusionError, match=r"default\.jsonl: damaged"):
        history.entries("default")


def test_many_writers_leave_one_line_each(tmp_path: Path) -> None:
    """Every process of a service notes the same change; some note others meanwhile."""

    def note(number: int) -> None:
        text = f"formula: click * {number % 5}\n".encode()
        History(tmp_path).record(f"f{number % 3}", str(number % 5), {"f": text}, str(number))

    with ThreadPoolExecutor(8) as writers:
        list(writers.map(note, range(120)))
    for name in ("f0", "f1", "f2"):
        lines = (tmp_path / ".history" / f"{name}.jsonl").read_text().splitlines()
        noted = [json.loads(line)["version"] for line in lines]
        assert set(noted) == {"0", "1", "2", "3", "4"}
        assert all(one != other for one, other in pairwise(noted))
    assert len(list((tmp_path / ".history").glob("*.yaml"))) == 5
