"""A user's own table, refused: what does not fit is named by file, row and column."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model_export import pipeline
from model_export.config import parse
from model_export.errors import ConfigInvalid, DataInvalid
from tests.unit.model_export.data import tables

ROWS = tables.views()
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
        (5, _with(price="1e300"), r"row 6: column price: 1e\+300 is no finite number \(float32\)"),
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
    with pytest.raises(DataInvalid, match=r"views.parquet, row 1: column item: double are no ids"):
        pipeline.prepare(tables.experiment(path))
    rows = [{**row, "tags": "a"} for row in ROWS]
    path = tables.write_parquet(rows, tmp_path / "texts.parquet")
    assert pipeline.prepare(tables.experiment(path)).features.schema.features[3].name == "tags"


def test_a_column_without_values_is_named(tmp_path: Path) -> None:
    for name, key in (("price", "item.price"), ("city", "user.home")):
        rows = [{**row, name: None} for row in ROWS]
        path = tables.write_csv(rows, tmp_path / "views.csv")
        with pytest.raises(DataInvalid, match=rf"views.csv: features: {key}: no value in the"):
            pipeline.prepare(tables.experiment(path))


def test_an_unclear_condition_is_named(tmp_path: Path) -> None:
    rows = [{**row, "watched": row["click"]} for row in ROWS]
    rows[20]["watched"] = 3
    path = tables.write_csv(rows, tmp_path / "views.csv")
    content = tables.content(path)
    content["tasks"][1]["where"] = "watched"
    experiment = parse(content, "views.yaml")
    message = r"views.csv, row 21: tasks: seconds: where: 'watched' is 3.0, neither 0 nor 1"
    with pytest.raises(DataInvalid, match=message):
        pipeline.prepare(experiment)
    rows[20].update(watched=None, seconds=None)
    tables.write_csv(rows, path)
    assert len(pipeline.prepare(experiment).train) == 144


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
        ("views.csv", "user,city,city\nu1,Bern,Rome\n", r"views.csv: 2 columns 'city'; it has"),
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


def test_what_the_options_get_wrong_is_named(tmp_path: Path) -> None:
    csv = tables.write_csv(ROWS, tmp_path / "views.csv")
    with pytest.raises(DataInvalid, match=r"absent.csv: no such file"):
        pipeline.prepare(tables.experiment(tmp_path / "absent.csv"))
    with pytest.raises(DataInvalid, match="no Parquet file in this directory"):
        pipeline.prepare(tables.experiment(tmp_path))  # in it is a CSV alone
    with pytest.raises(DataInvalid, match=r"views.csv: only Parquet can be streamed"):
        pipeline.prepare(tables.experiment(csv, streaming=True))
    with pytest.raises(DataInvalid, match=r"data.columns: no feature is called item.cost"):
        pipeline.prepare(
            tables.experiment(csv, columns={"item.cost": "price", "user.home": "city"})
        )
    with pytest.raises(ConfigInvalid, match="read ahead only with streaming"):
        tables.experiment(csv, workers=2)


def test_no_files_at_all_are_named() -> None:
    with pytest.raises(ConfigInvalid, match=r"data\.table\.files"):
        tables.experiment([])


def test_a_place_between_two_is_named(tmp_path: Path) -> None:
    rows = [{**row, "place": row["place"] + 0.5} for row in ROWS]
    path = tables.write_csv(rows, tmp_path / "views.csv")
    with pytest.raises(DataInvalid, match=r"column place: \d.5 is no position"):
        pipeline.prepare(tables.experiment(path, position="place"))
