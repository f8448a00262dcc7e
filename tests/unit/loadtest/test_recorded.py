"""Requests out of a decision log: as they were asked, in their order, checked as any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bundle.store import load
from loadtest.recorded import RecordedSource
from loadtest.samples import SampleUnusable
from tests.unit.bundle.tiny import write_bundle

FUSION: dict[str, Any] = {"name": None, "weights": {}, "formula": None}


def write_log(path: Path, records: list[dict[str, Any]]) -> Path:
    rows = [
        {
            "model": record.get("model", "tiny"),
            "user_id": record.get("user_id"),
            "item_ids": record["item_ids"],
            "given": json.dumps(
                {"user": {}, "context": {}, "items": {}, "fusion": FUSION, "top_k": 3}
                | record.get("given", {})
            ),
        }
        for record in records
    ]
    table = pa.Table.from_pylist(rows).replace_schema_metadata({"multirank.decisions": "{}"})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def test_requests_are_sent_as_they_came(tmp_path: Path) -> None:
    bundle = load(write_bundle(tmp_path / "tiny"))
    given = {
        "user": {"age": 20},
        "context": {"hour": 3},
        "items": {"price": [1.0, None]},
        "fusion": FUSION | {"name": "night", "weights": {"w": 2}},
    }
    write_log(tmp_path / "log/tiny/1/b.parquet", [{"item_ids": ["3"], "user_id": "ann"}])
    write_log(
        tmp_path / "log/tiny/1/a.parquet",
        [{"item_ids": ["1", "2"], "given": given}, {"item_ids": ["9"], "model": "other"}],
    )
    source = RecordedSource(bundle, tmp_path / "log", "columns")
    assert source.candidates == 1.5
    drawn = [source.draw() for _ in range(4)]
    assert len({asked.request_id for asked in drawn}) == 4
    first, second = sorted(drawn[:2], key=lambda asked: asked.candidates)
    assert orjson.loads(first.body) == {
        "request_id": first.request_id,
        "model": "tiny",
        "user": {"features": {"age": 20}},
        "context": {"hour": 3},
        "candidates": {"ids": ["1", "2"], "features": {"price": [1.0, None]}},
        "format": "columns",
        "fusion": {"name": "night", "weights": {"w": 2}},
    }
    body = orjson.loads(second.body)
    assert (body["user"], body["candidates"]) == ({"id": "ann"}, {"ids": ["3"]})
    assert "fusion" not in body
    assert (second.candidates, second.tasks) == (["3"], ("click", "like"))
    assert [asked.candidates for asked in drawn[2:]] == [asked.candidates for asked in drawn[:2]]


def test_a_log_without_requests_is_refused(tmp_path: Path) -> None:
    bundle = load(write_bundle(tmp_path / "tiny"))
    with pytest.raises(SampleUnusable, match="no request to tiny in a closed file"):
        RecordedSource(bundle, tmp_path / "none", "rows")
    write_log(tmp_path / "log/a.parquet", [{"item_ids": ["9"], "model": "other"}])
    with pytest.raises(SampleUnusable, match="no request to tiny"):
        RecordedSource(bundle, tmp_path / "log", "rows")
    pq.write_table(pa.table({"model": ["tiny"]}), tmp_path / "log" / "b.parquet")
    with pytest.raises(SampleUnusable, match=r"b\.parquet: no file of a decision log"):
        RecordedSource(bundle, tmp_path / "log", "rows")
