"""The log of a process: rotation, retention, dropping, failing disks, damaged files."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.encoding import Encoder
from bundle.manifest import Manifest
from bundle.rows import RowLayout
from bundle.schema import ENTITIES, Categorical, Entity, FeatureSchema, IdList, Number
from bundle.store import load
from service.decision_log import log as logs
from service.decision_log.log import DecisionLog, LogOptions
from service.decision_log.reading import Recorded, files_of, read
from service.decision_log.segment import recover, whole_batches
from service.metrics import Metrics
from service.values import Degradation, FusionChoice, Query, Ranked, Scored, Timing
from tests.unit.bundle.tiny import VOCABULARIES, item_rows, write_bundle

ITEMS = ["10", "11", "99"]


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return load(write_bundle(tmp_path / "tiny")).manifest


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


Start = Callable[..., DecisionLog]


@pytest.fixture
def start(tmp_path: Path, metrics: Metrics) -> Iterator[Start]:
    """Starts logs in one directory; all are closed when the test ends."""
    started: list[DecisionLog] = []

    def begin(**changes: Any) -> DecisionLog:
        values: dict[str, Any] = {
            "directory": tmp_path / "log",
            "rate": 1.0,
            "file_bytes": 1 << 30,
            "file_s": 3600.0,
            "total_bytes": 1 << 30,
        }
        log = DecisionLog(LogOptions(**values | changes), len(started), metrics)
        log.start()
        started.append(log)
        return log

    yield begin
    for log in started:
        log.close()


def decide(log: DecisionLog, manifest: Manifest, number: int = 0, **given: Any) -> Any:
    """Offer a decision of /rank; returns what was offered."""
    encoder = Encoder(manifest.features, VOCABULARIES)
    rows: dict[Entity, Any] = {
        "user": encoder.layouts["user"].pack({"age": [20 + number], "history": [["10"]]}, 1),
        "context": encoder.layouts["context"].empty(1),
        "item": item_rows(encoder, ITEMS),
    }
    query = Query(
        request_id=f"r{number}",
        model=None,
        version=None,
        user_key="ann",
        user_features={},
        context={},
        item_ids=ITEMS,
        item_keys=ITEMS,
        item_features=given,
        fusion=FusionChoice(),
        top_k=2,
        explain=False,
        arrived=0.0,
        deadline=0.0,
    )
    scores = np.array([[0.1, 0.2], [0.3, np.nan], [0.5, number]], np.float32)
    degraded = Degradation(reasons=["context_defaulted"])
    scored = Scored("r", "tiny", 1, ("click", "like"), ITEMS, scores, degraded, Timing())
    fused = np.array([0.3, np.nan, number])
    order = np.array([2, 0])
    ranked = Ranked(scored, "default", "abc", {"w": 2.0}, "night", order, fused, None)
    log.offer(query, ranked, rows, manifest)
    return rows, scores, fused


def count(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(f"multirank_{name}_total", labels) or 0.0


def everything(directory: Path) -> list[Recorded]:
    return [recorded for file in files_of(directory) for recorded in read(file)]


def until(condition: Callable[[], object]) -> None:
    give_up = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def test_what_is_written_is_what_was_decided(
    start: Start, manifest: Manifest, tmp_path: Path
) -> None:
    log = start()
    rows, scores, fused = decide(log, manifest, price=[1.5, None, 2])
    log.close()
    (found,) = everything(tmp_path / "log")
    assert (found.request_id, found.model, found.version) == ("r0", "tiny", 1)
    assert found.item_ids == ITEMS
    for entity in ENTITIES:
        assert found.rows[entity].tobytes() == rows[entity].tobytes()
    np.testing.assert_array_equal(found.scores, scores)
    np.testing.assert_array_equal(found.fused, fused)
    assert (found.fusion, found.fusion_version, found.weights) == ("default", "abc", {"w": 2.0})
    assert found.tasks == ("click", "like")
    import pyarrow.parquet as pq

    record = pq.read_table(files_of(tmp_path / "log")[0]).to_pylist()[0]
    assert record["user_id"] == "ann"
    assert record["fusion_rule"] == "night"
    assert record["order"] == [2, 0]
    assert '"items":{"price":[1.5,null,2]}' in record["given"]
    assert "context_defaulted" in record["degraded"]
    assert abs(record["time"].timestamp() - time.time()) < 60


def test_files_are_closed_at_a_size_and_the_oldest_deleted(
    start: Start, manifest: Manifest, metrics: Metrics, tmp_path: Path
) -> None:
    log = start(file_bytes=1, total_bytes=20_000)
    for number in range(6):
        decide(log, manifest, number)
        until(lambda n=number: count(metrics, "decision_log_files", event="closed") == n + 1)  # type: ignore[misc]
    log.close()
    kept = [recorded.request_id for recorded in everything(tmp_path / "log")]
    assert 0 < len(kept) < 6
    assert kept == [f"r{number}" for number in range(6 - len(kept), 6)]
    assert count(metrics, "decision_log_files", event="deleted") == 6 - len(kept)


def test_files_are_closed_at_an_age(start: Start, manifest: Manifest, tmp_path: Path) -> None:
    log = start(file_s=0.001)
    decide(log, manifest)
    until(lambda: list((tmp_path / "log").rglob("*.parquet")))


def test_a_full_queue_drops_and_counts(
    start: Start,
    manifest: Manifest,
    metrics: Metrics,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logs, "_QUEUE_BYTES", 2000)
    monkeypatch.setattr(logs, "_WRITE_EVERY_S", 3600)
    log = start()
    for number in range(10):
        decide(log, manifest, number)
    log.close()
    kept = len(everything(tmp_path / "log"))
    assert 0 < kept < 10
    assert count(metrics, "decisions", model="tiny", outcome="dropped") == 10 - kept
    assert count(metrics, "decisions", model="tiny", outcome="written") == kept
    decide(log, manifest)
    assert count(metrics, "decisions", model="tiny", outcome="dropped") == 11 - kept


def test_a_disk_that_fails_harms_nothing_else(
    start: Start,
    manifest: Manifest,
    metrics: Metrics,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "log").write_text("in the way")
    log = start()
    with caplog.at_level(logging.ERROR):
        decide(log, manifest, 1)
        until(lambda: count(metrics, "decisions", model="tiny", outcome="failed") == 1)
        decide(log, manifest, 2)
        until(lambda: count(metrics, "decisions", model="tiny", outcome="failed") == 2)
    assert caplog.text.count("decisions are not logged") == 1
    (tmp_path / "log").unlink()
    decide(log, manifest, 3)
    log.close()
    assert [recorded.request_id for recorded in everything(tmp_path / "log")] == ["r3"]


def test_one_decision_that_cannot_be_written_does_not_take_others_along(
    start: Start, manifest: Manifest, metrics: Metrics, tmp_path: Path
) -> None:
    log = start()
    decide(log, manifest, 1)
    decide(log, manifest, 2, price=[object(), 1, 1])
    decide(log, manifest, 3)
    log.close()
    assert [recorded.request_id for recorded in everything(tmp_path / "log")] == ["r1", "r3"]
    assert count(metrics, "decisions", model="tiny", outcome="failed") == 1


def test_the_rate_is_that_of_the_ids(start: Start) -> None:
    half, none, every = start(rate=0.5), start(rate=0.0), start(rate=1.0)
    ids = [f"request {number}" for number in range(2000)]
    assert 900 < sum(map(half.samples, ids)) < 1100
    assert not any(map(none.samples, ids))
    assert all(map(every.samples, ids))
    assert list(map(half.samples, ids)) == list(map(half.samples, ids))


@pytest.mark.parametrize("kept", [0.0, 0.2, 0.5, 0.99, 1.0])
def test_an_open_file_cut_anywhere_is_read_up_to_there(
    start: Start, manifest: Manifest, metrics: Metrics, tmp_path: Path, kept: float
) -> None:
    log = start()
    for number in range(4):
        decide(log, manifest, number)
        until(
            lambda n=number: (
                count(metrics, "decisions", model="tiny", outcome="written")  # type: ignore[misc]
                == n + 1
            )
        )
    (open_file,) = files_of(tmp_path / "log")
    content = open_file.read_bytes()
    cut = tmp_path / "cut" / "a.open"
    cut.parent.mkdir()
    cut.write_bytes(content[: int(len(content) * kept)])
    whole = sum(batch.num_rows for batch in whole_batches(cut))
    assert whole == {0.0: 0, 1.0: 4}.get(kept, whole)
    assert whole < 4 or kept == 1.0

    assert recover(open_file) is None  # its writer lives
    closed = recover(cut)
    assert not cut.exists()
    if whole:
        assert closed is not None
        assert [recorded.request_id for recorded in read(closed)] == [f"r{n}" for n in range(whole)]
    else:
        assert closed is None


def test_rows_move_to_another_versions_layout(start: Start, manifest: Manifest) -> None:
    log = start()
    decide(log, manifest)
    log.close()
    (found,) = everything(log._options.directory)
    schema = FeatureSchema(
        features=(
            Number(name="price", entity="item"),
            Categorical(name="id", entity="item", hash_buckets=7),
            Number(name="weight", entity="item"),
            IdList(name="history", entity="user", max_length=2, hash_buckets=9),
            Categorical(name="age", entity="user", hash_buckets=9),
        )
    )
    layouts = {entity: RowLayout(schema, entity) for entity in ENTITIES}
    rows, absent = found.rows_for(layouts)
    assert absent == ["user.age", "item.weight"]  # of another kind, and not there
    wanted = layouts["item"].pack({"id": ITEMS, "price": [2.0, 2.0, 2.0]}, 3)
    assert rows["item"]["hashes"].tolist() == wanted["hashes"].tolist()
    np.testing.assert_array_equal(rows["item"]["numbers"], wanted["numbers"])
    lists = layouts["user"].pack({"history": [["10"]]}, 1)
    assert rows["user"]["hashes"].tolist() == lists["hashes"].tolist()
    same, none = found.rows_for(found.layouts)
    assert (same["item"] is found.rows["item"], none) == (True, [])
