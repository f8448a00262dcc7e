"""Feature tables on disk: Parquet, CSV and JSON lines -> columns, a few hundred rows at a time.

In the two text forms a row is one line, so that a damaged line is one bad row and no more. A cell
of a CSV file is text: empty is "no value", a list is a JSON array or has `,` or `|` between values.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from service.files import check_plain

FORMS = (".parquet", ".csv", ".jsonl", ".ndjson")
_BOM = b"\xef\xbb\xbf"


class TableInvalid(Exception):
    """A feature table cannot be loaded; the message names the file, and column and row if any."""


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be loaded: its line (Parquet: its row, from 0), the column, and why."""

    place: str
    column: str
    reason: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.place, self.column, self.reason) if part)


@dataclass
class Columns:
    """Some rows of a table.

    Attributes:
        places: what to call each row, e.g. "line 3".
        columns: name -> one raw value a row.
        bad: lines that are no rows.
        seen: rows or lines of the file so far, these included. share: the same of all, 0 to 1.
        texts: whether values are texts, as in a CSV file.
    """

    columns: dict[str, list[Any]]
    places: list[str]
    bad: list[BadRow] = field(default_factory=list)
    seen: int = 0
    share: float = 0.0
    texts: bool = False


def read_columns(path: Path, wanted: Sequence[str], rows: int, after: int) -> Iterator[Columns]:
    """Read a table, by the form that its suffix says.

    Args:
        wanted: columns to read; all must be there, others are ignored.
        rows: at once. after: rows (Parquet) or lines to leave out from the beginning.

    Raises:
        TableInvalid: not a table, or a column is absent.
    """
    if path.suffix not in FORMS:
        raise TableInvalid(f"{path}: expected a file that ends in {', '.join(FORMS)}")
    try:
        check_plain(path)
    except OSError as error:
        raise TableInvalid(f"{path}: cannot be read: {error.strerror}") from error
    if path.suffix == ".parquet":
        yield from _read_parquet(path, wanted, rows, after)
        return
    try:
        with path.open("rb") as file:
            if path.suffix == ".csv":
                yield from _read_csv(path, file, wanted, rows, after)
            else:
                yield from _read_json_lines(path, file, wanted, rows, after)
    except OSError as error:
        raise TableInvalid(f"{path}: cannot be read: {error}") from error


def _read_parquet(path: Path, wanted: Sequence[str], rows: int, after: int) -> Iterator[Columns]:
    try:
        file = pq.ParquetFile(path)
    except (OSError, ValueError) as error:
        raise TableInvalid(f"{path}: not a readable Parquet file: {error}") from error
    with file:
        _check_names(path, wanted, file.schema_arrow.names)
        for name in wanted:
            if pa.types.is_temporal(kind := file.schema_arrow.field(name).type):
                raise TableInvalid(
                    f"{path}: column {name}: {kind} is no feature: write a number or a text"
                )
        total, seen = int(file.metadata.num_rows), 0
        try:
            for batch in file.iter_batches(rows, columns=list(wanted)):
                first = max(after - seen, 0)
                kept = batch.slice(first)
                columns = {name: kept.column(name).to_pylist() for name in wanted}
                places = [f"row {seen + first + n}" for n in range(len(kept))]
                seen += len(batch)
                if len(kept):
                    yield Columns(columns, places, seen=seen, share=seen / total)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise TableInvalid(f"{path}: after row {seen}: damaged: {error}") from error


def _read_csv(
    path: Path, file: BinaryIO, wanted: Sequence[str], rows: int, after: int
) -> Iterator[Columns]:
    header = _fields(file.readline().removeprefix(_BOM))
    if isinstance(header, str):
        raise TableInvalid(f"{path}: line 1: no header: {header}")
    _check_names(path, wanted, header)
    at = [header.index(name) for name in wanted]
    for chunk in _chunks(path, file, rows, after, lines=1):
        found: list[list[str]] = []
        columns = chunk.batch
        for place, line in chunk.lines:
            fields = _fields(line)
            if isinstance(fields, str):
                columns.bad.append(BadRow(place, "", fields))
            elif len(fields) != len(header):
                reason = f"{len(fields)} cells, the header has {len(header)}"
                columns.bad.append(BadRow(place, "", reason))
            else:
                found.append(fields)
                columns.places.append(place)
        columns.columns = {
            name: [fields[n] for fields in found] for name, n in zip(wanted, at, strict=True)
        }
        columns.texts = True
        yield columns


def _read_json_lines(
    path: Path, file: BinaryIO, wanted: Sequence[str], rows: int, after: int
) -> Iterator[Columns]:
    first = True
    for chunk in _chunks(path, file, rows, after, lines=0):
        found: list[dict[str, Any]] = []
        columns = chunk.batch
        for place, line in chunk.lines:
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                columns.bad.append(BadRow(place, "", f"not JSON: {error}"))
                continue
            if isinstance(row, dict):
                found.append(row)
                columns.places.append(place)
            else:
                columns.bad.append(BadRow(place, "", "not a JSON object"))
        if first and found:
            names = list(dict.fromkeys(name for row in found for name in row))
            _check_names(
                path, wanted, names, f' in its first {len(found)} rows (null is "no value")'
            )
            first = False
        columns.columns = {name: [row.get(name) for row in found] for name in wanted}
        yield columns


@dataclass
class _Chunk:
    lines: list[tuple[str, bytes]]
    batch: Columns


def _chunks(path: Path, file: BinaryIO, rows: int, after: int, lines: int) -> Iterator[_Chunk]:
    """Lines that are not blank, some at a time; `lines` were read already."""
    total = max(path.stat().st_size, 1)
    found: list[tuple[str, bytes]] = []
    read = file.tell()
    for number, line in enumerate(file, lines + 1):
        read += len(line)
        if number == 1:
            line = line.removeprefix(_BOM)
        if number > after and line.strip():
            found.append((f"line {number}", line))
        lines = number
        if len(found) == rows:
            yield _Chunk(found, Columns({}, [], seen=number, share=read / total))
            found = []
    if found:
        yield _Chunk(found, Columns({}, [], seen=lines, share=1.0))


def _fields(line: bytes) -> list[str] | str:
    """The cells of a line of CSV, or what is wrong with it."""
    try:
        text = line.decode().rstrip("\r\n")
        fields = next(csv.reader([text], strict=True), [])
    except UnicodeDecodeError:
        return "not UTF-8"
    except csv.Error as error:
        return f"not CSV: {error}"
    return fields


def _check_names(path: Path, wanted: Sequence[str], names: Sequence[str], where: str = "") -> None:
    if absent := set(wanted) - set(names):
        raise TableInvalid(
            f"{path}: no column {', '.join(sorted(absent))}; "
            f"the file has {', '.join(sorted(names)) or 'none'}{where}"
        )
    if twice := {name for name in wanted if names.count(name) > 1}:
        raise TableInvalid(f"{path}: two columns are called {', '.join(sorted(twice))}")
