"""A user's own table: the same rows however they are stored, streamed, and trained from."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from model_export import pipeline
from model_export.config import Config
from model_export.data.encoded import EncodedSet
from model_export.data.table.loader import TablePart
from model_export.errors import ConfigInvalid, DataInvalid
from tests.unit.model_export.data import tables

ROWS = tables.views()


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    return tables.write_csv(ROWS, tmp_path / "views.csv")


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    return tables.write_parquet(ROWS, tmp_path / "views.parquet")


def _all(config: Config) -> list[EncodedSet]:
    prepared = pipeline.prepare(config)
    parts = (prepared.train, prepared.validation, prepared.test)
    return [EncodedSet.concatenate(list(part.chunks())) for part in parts]


def _same(first: EncodedSet, second: EncodedSet) -> None:
    for field in fields(EncodedSet):
        one, other = getattr(first, field.name), getattr(second, field.name)
        if field.name in ("users", "items"):
            assert np.array_equal(one.ids, other.ids)
            np.testing.assert_allclose(one.numbers, other.numbers, rtol=1e-5, atol=1e-6)
        else:
            assert np.array_equal(one, other), field.name


def test_csv_and_parquet_in_memory_and_streamed_are_the_same_rows(csv: Path, parquet: Path) -> None:
    from_csv = _all(tables.experiment(csv))
    assert sum(map(len, from_csv)) == len(ROWS)
    assert [len(part) for part in from_csv] == [144, 48, 48]
    for other in (
        _all(tables.experiment(parquet)),
        _all(tables.experiment(parquet, streaming=True)),
    ):
        for one, two in zip(from_csv, other, strict=True):
            _same(one, two)


def test_files_are_read_one_after_the_other(parquet: Path, tmp_path: Path) -> None:
    several = tmp_path / "several"
    several.mkdir()
    tables.write_parquet(ROWS[:100], several / "1.parquet")
    tables.write_parquet(ROWS[100:], several / "2.parquet")
    listed = [several / "1.parquet", several / "2.parquet"]
    for files in (several, listed):
        for one, two in zip(
            _all(tables.experiment(parquet)), _all(tables.experiment(files)), strict=True
        ):
            _same(one, two)


def test_worker_processes_give_the_same_chunks_in_the_same_order(parquet: Path) -> None:
    alone, helped = (
        pipeline.prepare(tables.experiment(parquet, streaming=True, workers=workers)).train
        for workers in (0, 2)
    )
    for _ in range(2):  # the workers live on from epoch to epoch
        orders = [list(rows.chunks(np.random.default_rng(3))) for rows in (alone, helped)]
        assert len(orders[0]) == 5
        for one, two in zip(*orders, strict=True):
            _same(one, two)
    first = next(iter(alone.chunks(np.random.default_rng(3))))
    assert not np.array_equal(first.labels, next(iter(alone.chunks())).labels)


def test_a_streamed_epoch_holds_one_group_at_a_time(parquet: Path) -> None:
    feed = pipeline.prepare(tables.experiment(parquet, streaming=True)).feed
    assert isinstance(feed.train, TablePart)
    assert [len(chunk) for chunk in feed.train.chunks()] == [
        int((parts == 0).sum()) for parts in feed.train.table.part_of.values()
    ]
    assert max(len(chunk) for chunk in feed.train.chunks()) <= 50


def test_periods_by_time(parquet: Path) -> None:
    split = {"by": "time", "column": "when", "validation": 0.25, "test": 0.25}
    feed = pipeline.prepare(tables.experiment(parquet, split=split)).feed
    (test,) = feed.test.chunks()
    assert test.origin_rows is not None
    assert test.origin_rows.tolist() == list(range(181, 241))


def test_impressions_and_positions(parquet: Path) -> None:
    config = tables.experiment(
        parquet,
        impression="request",
        position="place",
        split={"by": "time", "column": "when", "validation": 0.25, "test": 0.25},
    )
    (train,) = pipeline.prepare(config).feed.train.chunks()
    assert len(train) == 120
    assert train.count("user") == 30
    assert np.bincount(train.user_row).tolist() == [4] * 30
    assert train.positions is not None
    assert train.positions.tolist() == [0, 1, 2, 3] * 30
    homes = train.column("user", "home")
    for row in range(0, 120, 4):  # the user of an impression is that of its first row
        assert homes[int(train.user_row[row])] == ROWS[row]["city"]


def test_the_samples_have_each_entity_with_its_last_row(csv: Path) -> None:
    users, items = pipeline.prepare(tables.experiment(csv)).feed.samples()
    assert users.table.num_rows == len({row["user"] for row in ROWS})
    last = {row["item"]: row for row in ROWS}
    found = {row["item"]: row for row in items.table.to_pylist()}
    assert found.keys() == last.keys()
    assert all(found[item]["price"] == pytest.approx(last[item]["price"]) for item in last)


@pytest.mark.timeout(600)  # an export on a busy machine takes its time
def test_training_and_export_from_a_streamed_table(parquet: Path, tmp_path: Path) -> None:
    config = tables.experiment(parquet, streaming=True)
    directory = pipeline.train(config, tmp_path / "run")
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["test"]["click"]["auc"] > 0.7
    bundle = pipeline.export(directory)
    assert (bundle / "manifest.json").is_file()


Change = Callable[[dict[str, Any]], object]


def _without(key: str) -> Change:
    return lambda row: row.pop(key)


def _with(**values: object) -> Change:
    return lambda row: row.update(values)


@pytest.mark.parametrize(
    ("row", "change", "message"),
    [
        (16, _with(price="cheap"), r"views.csv, row 17: column price: 'cheap' is no number"),
        (16, _with(price="nan"), r"views.csv, row 17: column price: nan is no finite number"),
        (3, _with(price="inf"), r"views.csv, row 4: column price: inf is no finite number"),
        (9, _with(click=2), r"views.csv, row 10: tasks: click: outcome 'click' is 2.0, .* 0 or 1"),
        (9, _with(click=None), r"views.csv, row 10: tasks: click: outcome 'click' is nan"),
        (7, _with(click=1, seconds=-1), r"row 8: tasks: seconds: .*'seconds' is -1.0, .*\[0, \]"),
        (5, _with(user=None), r"views.csv, row 6: column user: an id is missing"),
    ],
)
def test_a_wrong_value_is_named_by_file_row_and_column(
    row: int, change: Change, message: str, tmp_path: Path
) -> None:
    rows = [dict(one) for one in ROWS]
    change(rows[row])
    path = tables.write_csv(rows, tmp_path / "views.csv")
    with pytest.raises(DataInvalid, match=message):
        pipeline.train(tables.experiment(path), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("streaming", [False, True])
def test_a_wrong_value_in_parquet_is_named_too(streaming: bool, tmp_path: Path) -> None:
    rows = [dict(one) for one in ROWS]
    rows[130]["price"] = float("nan")
    path = tables.write_parquet(rows, tmp_path / "views.parquet")
    with pytest.raises(DataInvalid, match=r"views.parquet, row 131: column price: nan is no"):
        pipeline.train(tables.experiment(path, streaming=streaming), tmp_path / "run")


def test_a_column_of_another_kind_is_named(tmp_path: Path) -> None:
    rows = [{**row, "item": 0.5} for row in ROWS]
    path = tables.write_parquet(rows, tmp_path / "views.parquet")
    with pytest.raises(DataInvalid, match="column item: double are no ids"):
        pipeline.prepare(tables.experiment(path))
    rows = [{**row, "tags": "a"} for row in ROWS]
    path = tables.write_parquet(rows, tmp_path / "texts.parquet")
    assert pipeline.prepare(tables.experiment(path)).features.schema.features[3].name == "tags"


def test_a_task_that_is_never_positive_is_named(tmp_path: Path) -> None:
    rows = [{**row, "click": 0, "seconds": None} for row in ROWS]
    path = tables.write_csv(rows, tmp_path / "views.csv")
    with pytest.raises(DataInvalid, match=r"views.csv: tasks: click: all 144 .* 'click' are 0"):
        pipeline.train(tables.experiment(path), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("views.csv", "", r"views.csv: empty: no header and no rows"),
        ("views.csv", "user,city,item,price,tags,click,seconds\n", r"views.csv: empty: no rows"),
        ("views.csv", "user,city\nu1,Bern\n", r"views.csv: no column 'item'; it has user, city"),
        ("views.csv", "user,city\nu1,Bern,3\n", r"views.csv: .*Row #2: Expected 2 columns, got 3"),
        ("views.parquet", "", r"views.parquet: empty"),
        ("views.parquet", "no parquet", r"views.parquet: .*magic bytes"),
        ("views.txt", "x", r"views.txt: neither .parquet nor .csv"),
    ],
)
def test_a_file_that_is_no_table_is_named(
    name: str, text: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(DataInvalid, match=message):
        pipeline.prepare(tables.experiment(path))


def test_what_the_options_get_wrong_is_named(csv: Path, tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match=r"absent.csv: no such file"):
        pipeline.prepare(tables.experiment(tmp_path / "absent.csv"))
    with pytest.raises(DataInvalid, match="no Parquet file in this directory"):
        pipeline.prepare(tables.experiment(tmp_path))
    with pytest.raises(DataInvalid, match=r"views.csv: only Parquet can be streamed"):
        pipeline.prepare(tables.experiment(csv, streaming=True))
    with pytest.raises(DataInvalid, match=r"data.columns: no feature is called item.cost"):
        pipeline.prepare(
            tables.experiment(csv, columns={"item.cost": "price", "user.home": "city"})
        )
    with pytest.raises(ConfigInvalid, match="read ahead only with streaming"):
        tables.experiment(csv, workers=2)


def test_a_parquet_of_other_types_is_read(tmp_path: Path) -> None:
    """Dictionary-encoded strings, booleans for labels, decimals for numbers."""
    table = pa.Table.from_pylist(ROWS)
    for name, kind in (
        ("city", pa.dictionary(pa.int32(), pa.string())),
        ("click", pa.bool_()),
        ("price", pa.float32()),
    ):
        at = table.column_names.index(name)
        table = table.set_column(at, name, table[name].cast(kind))
    path = tmp_path / "views.parquet"
    pa.parquet.write_table(table, path)
    plain = _all(tables.experiment(tables.write_csv(ROWS, tmp_path / "views.csv")))
    for one, two in zip(_all(tables.experiment(path)), plain, strict=True):
        _same(one, two)
