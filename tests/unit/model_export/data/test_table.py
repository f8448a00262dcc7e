"""A user's own table: the same rows however they are stored, streamed, and trained from."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import fields
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml

from bundle import store
from model_export import pipeline
from model_export.config import Config, parse
from model_export.data.declarations import IdListDeclaration
from model_export.data.encoded import EncodedSet
from model_export.data.table import values
from model_export.data.table.loader import TablePart
from model_export.errors import DataInvalid
from tests.conftest import ROOT
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


@pytest.mark.parametrize("kind", ["timestamp", "date", "ISO text"])
def test_moments_are_written_in_several_ways(kind: str, tmp_path: Path) -> None:
    start = datetime(2026, 1, 31, 23, 0)
    moments = [start + timedelta(days=number // 4) for number in range(len(ROWS))]
    write: dict[str, Callable[[datetime], object]] = {
        "timestamp": lambda moment: moment,
        "date": datetime.date,
        "ISO text": lambda moment: moment.isoformat(sep=" "),
    }
    rows = [{**row, "when": write[kind](when)} for row, when in zip(ROWS, moments, strict=True)]
    split = {"by": "time", "column": "when", "validation": 0.25, "test": 0.25}
    if kind == "ISO text":
        path = tables.write_csv(rows, tmp_path / "views.csv")
    else:
        path = tables.write_parquet(rows, tmp_path / "views.parquet")
    feed = pipeline.prepare(tables.experiment(path, split=split)).feed
    (test,) = feed.test.chunks()
    assert test.origin_rows is not None
    assert test.origin_rows.tolist() == list(range(181, 241))


def test_a_moment_s_zone_counts_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    column = pa.chunked_array([["2026-01-31T23:00:00+02:00", "2026-01-31 21:30", "2026-02-01"]])
    found = values.times("when", column, str)
    assert np.diff(found).tolist() == [30 * 60 * 1e6, 150 * 60 * 1e6]
    with pytest.raises(DataInvalid, match="1: column when: 'soon' is no time: a whole number or"):
        values.times("when", pa.chunked_array([["2026-01-31", "soon"]]), str)
    with pytest.raises(DataInvalid, match="1: column when: no time"):
        values.times("when", pa.chunked_array([["2026-01-31", None]]), str)


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


def test_true_and_false_are_labels_and_an_empty_list_is_a_value(tmp_path: Path) -> None:
    column = pa.chunked_array([["True", "False", None, "true"]])
    found = values.numbers("click", column, str)
    np.testing.assert_array_equal(found, [1, 0, np.nan, 1])
    tags = IdListDeclaration(
        name="tags", entity="item", kind="id_list", hash_buckets=9, max_length=3
    )
    cells = pa.chunked_array([["a|b", "", None]])
    assert values.raw_values(tags, "tags", cells, "|", str) == [["a", "b"], [], None]


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


def test_the_readme_s_table_is_trained_as_it_stands(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    (whole,) = re.findall(r"```yaml\n(name: clicks .*?)```", readme, re.DOTALL)
    names = {"user": "user_id", "item": "item_id", "request": "request_id", "when": "shown_at"}
    rows = [{names.get(name, name): value for name, value in row.items()} for row in ROWS]
    for number, row in enumerate(rows):
        row["buy"] = number % 2 if row["click"] else None
        row["return_visit"] = number % 3 == 0
    tables.write_parquet(rows, tmp_path / "clicks.parquet")
    content = yaml.safe_load(whole)
    content["data"] |= {"files": tmp_path / "clicks.parquet", "workers": 0}
    content["training"]["epochs"] = 1
    run = pipeline.train(parse(content, "README.md"), tmp_path / "run")
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert set(last["test"]) == {"click", "buy", "seconds", "return_visit"}


def test_columns_may_have_any_name(tmp_path: Path) -> None:
    names = {"user": "Nutzer-ID", "item": "item id", "city": "Город"}
    rows = [{names.get(name, name): value for name, value in row.items()} for row in ROWS]
    csv = tables.write_csv(rows, tmp_path / "views.csv")
    columns = {"user.home": "Город", "item.item": "item id"}
    experiment = tables.experiment(csv, columns=columns, user="Nutzer-ID", item="item id")
    published = pipeline.run(experiment, tmp_path / "runs", tmp_path / "models")
    samples = store.load(published).manifest.samples
    assert {sample.key for sample in samples.values()} == {"Nutzer-ID", "item id"}
