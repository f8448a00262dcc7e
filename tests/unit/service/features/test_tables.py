"""Feature tables: Parquet to packed rows, and what cannot be loaded is named by file and row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.features import tables
from service.features.tables import TableInvalid, read_table, table_rows
from tests.unit.service.features.fake_store import LAYOUTS

LAYOUT = LAYOUTS["item"]


def write(path: Path, columns: dict[str, Any]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_rows_come_in_batches_by_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "BATCH_ROWS", 2)
    columns: dict[str, Any] = {
        "item_id": [1, 2, 3],
        "title": ["x", "y", "z"],
        "id": ["10", "11", None],
        "price": [1.5, None, 2],
    }
    path = write(tmp_path / "items.parquet", columns)
    assert table_rows(path) == 3
    batches = list(read_table(path, "item_id", LAYOUT))
    assert [[entity_id for entity_id, _ in batch] for batch in batches] == [["1", "2"], ["3"]]
    decoded = LAYOUT.decode([row for batch in batches for _, row in batch])
    assert decoded.found.all()
    expected = LAYOUT.pack({name: columns[name] for name in ("id", "price")}, 3)
    assert LAYOUT.content_hash(decoded.rows).tolist() == LAYOUT.content_hash(expected).tolist()
    assert (decoded.rows["written"] > 1_600_000_000_000).all()


def test_the_id_may_be_a_feature_as_well(tmp_path: Path) -> None:
    path = write(tmp_path / "items.parquet", {"id": ["10"], "price": [1.5]})
    ((entity_id, _),) = next(read_table(path, "id", LAYOUT))
    assert entity_id == "10"


def test_an_empty_table_has_no_rows(tmp_path: Path) -> None:
    columns = {"id": pa.array([], pa.string()), "price": pa.array([], pa.float64())}
    path = write(tmp_path / "items.parquet", columns)
    assert table_rows(path) == 0
    assert [each for batch in read_table(path, "id", LAYOUT) for each in batch] == []


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": ["1"]}, "no column price; the file has id"),
        ({"price": [1.0]}, "no column id"),
        ({"id": ["1", "2", None], "price": [1.0] * 3}, "id: row 2 has no id"),
        (
            {"id": ["1", "2", "3"], "price": [1.0, 2.0, float("nan")]},
            "price: row 2: expected a finite number within float32, got nan",
        ),
        ({"id": ["1"], "price": ["cheap"]}, "price: row 0: expected a number, got str"),
    ],
)
def test_what_cannot_be_loaded_is_named(
    tmp_path: Path, columns: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "BATCH_ROWS", 2)
    path = write(tmp_path / "items.parquet", columns)
    with pytest.raises(TableInvalid) as caught:
        list(read_table(path, "id", LAYOUT))
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_what_is_no_table(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    for content in (None, b"", b"not Parquet"):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(TableInvalid, match="not a readable Parquet file"):
            table_rows(path)
