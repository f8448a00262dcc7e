"""The deployment file: replaced as a whole, by one writer at a time, refused when it is wrong."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import stat
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from service.lifecycle.deployment import Deployment, DeploymentInvalid, Roles, deploy, pin
from service.lifecycle.deployment_file import ChangedMeanwhile, change, read, serialise

CHANGES = 25


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for version in (1, 2, 3):
        (tmp_path / "tiny" / str(version)).mkdir(parents=True)
    return tmp_path


def next_version(now: Deployment, published: Sequence[int]) -> Roles:
    stable = now.roles.stable
    return deploy(now.roles, 1 if stable == "newest" else stable % 3 + 1, published)


def write_many(models: Path, name: str) -> None:
    for _ in range(CHANGES):
        change(models, "tiny", "deploy", next_version, by=name)


def write_forever(models: Path) -> None:
    while True:
        change(models, "tiny", "deploy", next_version, by="somebody who is killed")


def test_no_file_reads_as_following_the_newest(models: Path) -> None:
    assert read(models, "tiny") == Deployment()


def test_a_change_is_read_back_with_its_history(models: Path) -> None:
    before, after = change(models, "tiny", "deploy", next_version, by="ann", reason="because")
    assert (before, after) == (Deployment(), read(models, "tiny"))
    assert (after.generation, after.roles.stable) == (1, 1)
    (entry,) = after.history
    assert (entry.by, entry.reason, entry.before.stable) == ("ann", "because", "newest")
    path = models / "tiny" / "deployment.json"
    assert path.read_bytes() == serialise(after)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_change_that_changes_nothing_leaves_the_file(models: Path) -> None:
    change(models, "tiny", "deploy", next_version, by="ann")
    path = models / "tiny" / "deployment.json"
    seen = path.stat()
    before, after = change(models, "tiny", "pin", lambda n, p: pin(n.roles, [], p), by="ann")
    assert before is after
    assert path.stat().st_ino == seen.st_ino


def test_a_change_for_another_generation_is_refused(models: Path) -> None:
    change(models, "tiny", "deploy", next_version, by="ann", generation=0)
    with pytest.raises(ChangedMeanwhile, match="of generation 1, the change was meant for 0"):
        change(models, "tiny", "deploy", next_version, by="bob", generation=0)
    assert read(models, "tiny").generation == 1


def test_a_model_that_is_not_published(models: Path) -> None:
    with pytest.raises(DeploymentInvalid, match="no version is published"):
        change(models, "huge", "deploy", next_version, by="ann")
    assert not (models / "huge").exists()


def test_writers_at_the_same_time_lose_nothing(models: Path) -> None:
    spawn = multiprocessing.get_context("fork")
    writers = [spawn.Process(target=write_many, args=(models, f"w{n}")) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    after = read(models, "tiny")
    assert after.generation == 4 * CHANGES
    names = [entry.by for entry in after.history]
    assert {name: names.count(name) for name in set(names)} == {f"w{n}": CHANGES for n in range(4)}
    stables = [*(entry.before.stable for entry in after.history[1:]), after.roles.stable]
    assert stables == [n % 3 + 1 for n in range(4 * CHANGES)]


def test_a_killed_writer_leaves_a_whole_file_and_no_lock(models: Path) -> None:
    for _ in range(10):
        writer = multiprocessing.get_context("fork").Process(target=write_forever, args=(models,))
        writer.start()
        time.sleep(0.02)
        os.kill(writer.pid or 0, signal.SIGKILL)
        writer.join(60)
        found = read(models, "tiny")
        _, after = change(models, "tiny", "deploy", next_version, by="ann")
        assert after.generation == found.generation + 1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "Invalid JSON"),
        ("{", "Invalid JSON"),
        ("[]", "deployment"),
        ('{"schema_version": 2}', "schema_version"),
        ('{"roles": {"stable": "latest"}}', "roles.stable"),
        ('{"roles": {"stable": 1, "canary": {"version": 2, "percent": 101}}}', "canary.percent"),
        ('{"rolls": {}}', "rolls"),
    ],
)
def test_a_file_that_is_wrong_is_refused_and_says_where(
    models: Path, content: str, says: str
) -> None:
    path = models / "tiny" / "deployment.json"
    path.write_text(content)
    with pytest.raises(DeploymentInvalid, match=f"{re.escape(str(path))}: .*{re.escape(says)}"):
        read(models, "tiny")
    with pytest.raises(DeploymentInvalid):
        change(models, "tiny", "deploy", next_version, by="ann")
    assert path.read_text() == content
