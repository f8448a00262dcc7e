"""Files that are no decision log, or were changed since: named, and never taken for decisions."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bundle.manifest import Manifest
from bundle.store import load
from service.decision_log.batches import METADATA, schema_of
from service.decision_log.log import DecisionLog, LogOptions
from service.decision_log.reading import LogUnreadable, files_of, read
from service.decision_log.segment import Segment
from service.metrics import Metrics
from tests.unit.bundle.tiny import write_bundle
from tests.unit.service.decision_log.test_log import decide

Damage = Callable[[Path], object]


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return load(write_bundle(tmp_path / "tiny")).manifest


@pytest.fixture
def closed(tmp_path: Path, manifest: Manifest) -> Path:
    """A closed file with decisions in it."""
    log = DecisionLog(LogOptions(tmp_path / "log", 1.0, 1 << 30, 3600.0, 1 << 30), 0, Metrics())
    log.start()
    for number in range(1000):
        decide(log, manifest, number)
    log.close()
    (file,) = files_of(tmp_path / "log")
    assert len(list(read(file))) == 1000
    return file


def test_what_is_no_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LogUnreadable, match="no decision log there"):
        files_of(tmp_path)
    (tmp_path / "a.parquet").write_bytes(b"no Parquet")
    with pytest.raises(LogUnreadable, match=r"a\.parquet"):
        list(read(tmp_path / "a.parquet"))
    os.mkfifo(tmp_path / "b.parquet")
    with pytest.raises(LogUnreadable, match=r"b\.parquet.*|must be a plain file, is a named pipe"):
        list(read(tmp_path / "b.parquet"))


def other_metadata(**changes: Any) -> Damage:
    def damage(file: Path) -> None:
        table = pq.read_table(file)
        described: dict[str, Any] = json.loads(table.schema.metadata[METADATA])
        metadata = {METADATA: json.dumps(described | changes)}
        pq.write_table(table.replace_schema_metadata(metadata), file)

    return damage


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (other_metadata(features={"x": 1}), "not as this release writes it"),
        (other_metadata(tasks=["another"]), "not as this release writes it: 'score.another'"),
        (other_metadata(format=99), "of another release"),
        (
            lambda file: pq.write_table(pq.read_table(file).drop_columns(["given"]), file),
            "not as this release writes it: 'given'",
        ),
        (
            lambda file: pq.write_table(
                pq.read_table(file).replace_schema_metadata({METADATA: b"{"}), file
            ),
            "not as this release writes it",
        ),
    ],
)
def test_a_log_of_another_kind_is_refused(closed: Path, damage: Damage, says: str) -> None:
    damage(closed)
    with pytest.raises(LogUnreadable, match=says):
        list(read(closed))


def test_a_changed_byte_is_found_where_it_is_in_data(closed: Path) -> None:
    """Headers of pages have no checksum of their own."""
    content = closed.read_bytes()
    pages = content.index(b"ARROW:schema")  # what comes before is data, and headers of pages
    places = range(4, pages, max(pages // 60, 1))
    refused = 0
    for at in places:
        closed.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        try:
            list(read(closed))
        except LogUnreadable:
            refused += 1
    assert refused > len(places) / 2


def test_a_full_disk_leaves_no_file_behind(
    tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    opened = Segment(tmp_path / "log", "a", schema_of(manifest), 0.0)
    opened.abandon()
    monkeypatch.setattr(pa.ipc, "new_stream", full)
    with pytest.raises(OSError, match="No space left"):
        Segment(tmp_path / "log", "b", schema_of(manifest), 0.0)
    assert list((tmp_path / "log").iterdir()) == []
