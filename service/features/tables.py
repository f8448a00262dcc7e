"""Feature tables -> packed, sealed rows by id, for whatever store is loaded; bad rows apart."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from bundle.errors import ValueRejected
from bundle.rows import RowLayout
from bundle.schema import Bucketised, DenseVector, Feature, IdList, Number
from service.features.keys import id_of
from service.features.table_files import BadRow, Columns, TableInvalid, read_columns

BATCH_ROWS = 512
"""Rows packed and written at once: few enough that a Redis is never busy with them for long."""


@dataclass(frozen=True)
class Batch:
    """Some rows of a table, packed.

    Attributes:
        rows: (id, packed row) pairs. bad: the rows that could not be packed.
        seen: rows or lines of the file so far. share: the same of all, 0 to 1.
    """

    rows: list[tuple[str, bytes]]
    bad: list[BadRow]
    seen: int
    share: float


def read_table(
    path: Path, key: str, layout: RowLayout, after: int = 0, batch_rows: int = 0
) -> Iterator[Batch]:
    """Read a Parquet, CSV or JSON lines file in batches.

    Args:
        key: the column that holds the ids. It may be a feature as well.
        layout: of the entity's rows; every feature of it must be a column, others are ignored.
        after: rows or lines to leave out from the beginning, as `Batch.seen` counts them.

    Raises:
        TableInvalid: not a table, or a column is absent.
    """
    wanted = sorted({key, *layout.slots})
    for columns in read_columns(path, wanted, batch_rows or BATCH_ROWS, after):
        bad = list(columns.bad)
        try:
            rows = _pack(columns, range(len(columns.places)), key, layout)
        except ValueRejected:  # which ones? one by one
            good = []
            for row in range(len(columns.places)):
                try:
                    _pack(columns, [row], key, layout)
                    good.append(row)
                except ValueRejected as error:
                    bad.append(BadRow(columns.places[row], error.feature, error.reason))
            rows = _pack(columns, good, key, layout)
        bad.sort(key=lambda each: int(each.place.rpartition(" ")[2]))
        yield Batch(rows, bad, columns.seen, columns.share)


def read_whole_table(path: Path, key: str, layout: RowLayout) -> Iterator[list[tuple[str, bytes]]]:
    """As `read_table`, where a bad row is an error; raises TableInvalid, naming it."""
    for batch in read_table(path, key, layout):
        if batch.bad:
            raise TableInvalid(f"{path}: {batch.bad[0]}")
        yield batch.rows


def _pack(
    columns: Columns, rows: Sequence[int], key: str, layout: RowLayout
) -> list[tuple[str, bytes]]:
    ids = [id_of(columns.columns[key][row], key) for row in rows]
    given = {name: [columns.columns[name][row] for row in rows] for name in layout.slots}
    if columns.texts:
        for name, slot in layout.slots.items():
            given[name] = [_of_text(slot.feature, text) for text in given[name]]
    packed = layout.pack(given, len(ids))
    layout.seal(packed, time.time_ns() // 1_000_000)
    return [(entity_id, row.tobytes()) for entity_id, row in zip(ids, packed, strict=True)]


def _of_text(feature: Feature, text: str) -> Any:
    """The value that a cell of a CSV file stands for."""
    if text == "":
        return None
    match feature:
        case Number() | Bucketised():
            return _number(feature.name, text)
        case IdList():
            return _list(feature.name, text, str)
        case DenseVector():
            return _list(feature.name, text, lambda cell: _number(feature.name, cell))
    return text


def _number(name: str, text: str) -> float:
    try:
        if "_" not in text:  # which Python takes, and nobody else
            return float(text)
    except ValueError:
        pass
    raise ValueRejected(name, None, f"expected a number, got {text!r}")


def _list(name: str, text: str, of: Callable[[str], Any]) -> list[Any]:
    if not text.startswith("["):
        return [of(cell.strip()) for cell in text.replace("|", ",").split(",")]
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ValueRejected(name, None, f"not a JSON array: {error}") from error
    return list(found)
