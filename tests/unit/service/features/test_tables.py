"""Feature tables: three forms to packed rows; what cannot be loaded is named by line and column."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bundle.rows import RowLayout
from bundle.schema import Categorical, DenseVector, FeatureSchema, IdList, Number
from service.features.table_files import TableInvalid
from service.features.tables import Batch, read_table, read_whole_table

SCHEMA = FeatureSchema(
    features=(
        Categorical(name="maker", entity="item", hash_buckets=10),
        IdList(name="tags", entity="item", max_length=3, hash_buckets=10),
        Number(name="price", entity="item"),
        DenseVector(name="place", entity="item", dimension=2),
    )
)
LAYOUT = RowLayout(SCHEMA, "item")
GOOD: list[dict[str, Any]] = [
    {"id": "1", "maker": "a,b", "tags": ["x", "y"], "price": 1.5, "place": [0.0, 1.0]},
    {"id": "2", "maker": None, "tags": None, "price": None, "place": None},
    {"id": "żółć", "maker": "7", "tags": ["z"], "price": -2.0, "place": [2.0, 3.0]},
]
CSV = """id,unused,maker,tags,price,place
1,u,"a,b","x, y",1.5,"[0, 1.0]"
2,,,,,
żółć,,7,"[""z""]",-2,2|3
"""


def write(path: Path, rows: list[dict[str, Any]] | str) -> Path:
    """A table in the form that the suffix says."""
    if isinstance(rows, str):
        path.write_text(rows)
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path, after: int = 0, batch_rows: int = 2) -> Iterator[Batch]:
    return read_table(path, "id", LAYOUT, after, batch_rows)


@pytest.mark.parametrize(
    ("name", "content"), [("t.parquet", GOOD), ("t.jsonl", GOOD), ("t.csv", CSV)]
)
def test_the_same_rows_come_of_every_form(
    tmp_path: Path, name: str, content: list[dict[str, Any]] | str
) -> None:
    path = write(tmp_path / name, content)
    batches = list(read(path))
    assert [each.bad for each in batches] == [[], []]
    assert batches[-1].share == 1.0
    rows = [row for batch in batches for row in batch.rows]
    assert [entity_id for entity_id, _ in rows] == ["1", "2", "żółć"]
    decoded = LAYOUT.decode([row for _, row in rows])
    assert decoded.found.all()
    wanted = LAYOUT.pack({f: [row[f] for row in GOOD] for f in LAYOUT.slots}, 3)
    assert LAYOUT.content_hash(decoded.rows).tolist() == LAYOUT.content_hash(wanted).tolist()
    assert (decoded.rows["written"] > 1_600_000_000_000).all()
    # and it can be gone on with from wherever a batch ended
    again = [row for batch in read(path, after=batches[0].seen) for row in batch.rows]
    assert [entity_id for entity_id, _ in again] == ["żółć"]
    assert list(read(path, after=batches[-1].seen)) == []
    whole = [row for part in read_whole_table(path, "id", LAYOUT) for row in part]
    assert [entity_id for entity_id, _ in whole] == ["1", "2", "żółć"]


DAMAGED_CSV = (
    b"id,maker,tags,price,place\n"
    b"1,a,x,1.5,0|1\n"
    b"2,a,x\n"
    b"3,a,x,cheap,0|1\n"
    b"\n"
    b'5,"a,x,1,0|1\n'
    b"6,\xff,x,1,0|1\n"
    b",a,x,1,0|1\n"
    b"8,a,x,inf,0|1\n"
    b"9,a,[x,1,0|1\n"
    b"10,a,x,1,0|1|2\n"
    b"11,a,x,2.5,0|1\n"
    b"12,a,x,2_5,0|1\n" + b"x" * 513 + b",a,x,2.5,0|1\n"
)
DAMAGED_JSON = (
    b'\xef\xbb\xbf{"id": 1, "maker": "a", "tags": ["x"], "price": 1, "place": [0, 1]}\n'
    b'{"id": 2, "maker": "a"\n'
    b"[3]\n"
    b'{"id": 4, "price": "cheap"}\n'
    b'{"id": 5, "tags": "x"}\n'
    b'{"id": 6.5}\n'
    b'{"id": true}\n'
    b'{"maker": "a"}\n'
    b'{"id": 9}\n'
)


@pytest.mark.parametrize(
    ("name", "content", "good", "bad"),
    [
        (
            "t.csv",
            DAMAGED_CSV,
            ["1", "11"],
            [
                "line 3: 3 cells, the header has 5",
                "line 4: price: expected a number, got 'cheap'",
                "line 6: not CSV: unexpected end of data",
                "line 7: not UTF-8",
                "line 8: id: has no id",
                "line 9: price: expected a finite number within float32, got inf",
                "line 10: tags: not a JSON array: ",
                "line 11: place: expected a list of 2 numbers",
                "line 13: price: expected a number, got '2_5'",
                "line 14: id: an id has 512 characters at most, got 513",
            ],
        ),
        (
            "t.ndjson",
            DAMAGED_JSON,
            ["1", "9"],
            [
                "line 2: not JSON: ",
                "line 3: not a JSON object",
                "line 4: price: expected a number, got str",
                "line 5: tags: expected a list of ids, got str",
                "line 6: id: an id is a string or an integer, got float",
                "line 7: id: an id is a string or an integer, got bool",
                "line 8: id: has no id",
            ],
        ),
    ],
)
@pytest.mark.parametrize("batch_rows", [1, 3, 100])
def test_every_bad_row_is_named_and_no_good_one_is_lost(
    tmp_path: Path, name: str, content: bytes, good: list[str], bad: list[str], batch_rows: int
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    batches = list(read(path, batch_rows=batch_rows))
    assert [entity_id for batch in batches for entity_id, _ in batch.rows] == good
    found = [str(each) for batch in batches for each in batch.bad]
    assert len(found) == len(bad)
    assert all(each.startswith(start) for each, start in zip(found, bad, strict=True)), found
    with pytest.raises(TableInvalid, match=r"t\.\w+: line "):
        list(read_whole_table(path, "id", LAYOUT))


def test_bad_rows_of_parquet_are_counted_from_0(tmp_path: Path) -> None:
    rows = [
        row | {"price": price} for row, price in zip(GOOD, (1.0, 2.0, float("nan")), strict=True)
    ]
    rows[1]["id"] = None
    batches = list(read(write(tmp_path / "t.parquet", rows)))
    assert [str(each) for batch in batches for each in batch.bad] == [
        "row 1: id: has no id",
        "row 2: price: expected a finite number within float32, got nan",
    ]


def test_the_id_may_be_a_feature_as_well(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", [{**GOOD[0], "maker": 10}])
    (batch,) = read_table(path, "maker", LAYOUT)
    assert [entity_id for entity_id, _ in batch.rows] == ["10"]


@pytest.mark.parametrize(
    ("name", "columns", "says"),
    [
        ("at", pa.array([0], pa.timestamp("ns")), "column price: timestamp[ns] is no feature"),
        ("day", pa.array([0], pa.date32()), "column price: date32[day] is no feature"),
        ("twice", pa.array([1.0]), "two columns are called price"),
    ],
)
def test_columns_of_parquet_that_are_no_features(
    tmp_path: Path, name: str, columns: Any, says: str
) -> None:
    good = pa.Table.from_pylist(GOOD[:1])
    if name != "twice":
        good = good.drop_columns("price")
    pq.write_table(good.append_column("price", columns), tmp_path / "t.parquet")
    with pytest.raises(TableInvalid) as caught:
        list(read(tmp_path / "t.parquet"))
    assert says in str(caught.value)


def test_what_cannot_be_read_twice_is_no_table(tmp_path: Path) -> None:
    for name in ("t.csv", "t.parquet"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(TableInvalid, match="must be a plain file, is a named pipe"):
            list(read(tmp_path / name))


def test_an_empty_table_has_no_rows(tmp_path: Path) -> None:
    schema = pa.Table.from_pylist(GOOD).schema
    pq.write_table(schema.empty_table(), tmp_path / "t.parquet")
    assert list(read(tmp_path / "t.parquet")) == []
    assert list(read(write(tmp_path / "t.csv", CSV.splitlines()[0]))) == []
    assert list(read(write(tmp_path / "t.jsonl", ""))) == []


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("t.parquet", "not Parquet", "not a readable Parquet file"),
        ("t.csv", "id,price\n1,2\n", "no column maker, place, tags; the file has id, price"),
        ("t.csv", "", "no column id"),
        ("t.jsonl", '{"id": 1}\n', "no column maker, place, price, tags; the file has id"),
        ("t.txt", "", "expected a file that ends in .parquet, .csv, .jsonl, .ndjson"),
        ("t.csv", "id,maker,tags,price,place,price\n", "two columns are called price"),
        ("absent.csv", None, "cannot be read"),
        ("absent.parquet", None, "cannot be read: No such file"),
    ],
)
def test_what_is_no_table(tmp_path: Path, name: str, content: str | None, says: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(TableInvalid) as caught:
        list(read(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert says in str(caught.value)
