"""The files of a table: opened, checked for the columns, read as Arrow tables of whole groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from model_export.errors import DataInvalid

_CSV_ENDINGS = (".csv", ".csv.gz")


@dataclass(frozen=True)
class Group:
    """Rows that are read together: a row group of a Parquet file, or all of a CSV.

    Attributes:
        number: of the row group in its file.
        first: number of its first row in the whole table, from 0. first_in_file: in its file.
        rows: how many.
    """

    path: Path
    number: int
    first: int
    first_in_file: int
    rows: int


def find(files: Sequence[Path] | Path) -> list[Path]:
    """The files, those of a directory in the order of their names.

    Raises:
        DataInvalid: there is none, or one that is neither Parquet nor CSV.
    """
    found: list[Path] = []
    for path in [files] if isinstance(files, Path) else files:
        if path.is_dir():
            inside = sorted(path.glob("*.parquet"))
            if not inside:
                raise DataInvalid(f"{path}: no Parquet file in this directory")
            found += inside
        elif not path.is_file():
            raise DataInvalid(f"{path}: no such file")
        elif not is_csv(path) and path.suffix != ".parquet":
            raise DataInvalid(f"{path}: neither .parquet nor {' nor '.join(_CSV_ENDINGS)}")
        else:
            found.append(path)
    return found


def is_csv(path: Path) -> bool:
    """Whether the file is read as CSV, by its name."""
    return path.name.endswith(_CSV_ENDINGS)


def groups(paths: Sequence[Path], columns: Sequence[str]) -> list[Group]:
    """The groups of Parquet files, from their metadata alone.

    Raises:
        DataInvalid: a file is empty or damaged, lacks a column or has it twice.
    """
    found: list[Group] = []
    first = 0
    for path in paths:
        file = _parquet(path)
        _check(path, file.schema_arrow.names, columns, file.metadata.num_rows)
        first_in_file = 0
        for number in range(file.metadata.num_row_groups):
            rows = file.metadata.row_group(number).num_rows
            if rows:
                found.append(Group(path, number, first, first_in_file, rows))
            first, first_in_file = first + rows, first_in_file + rows
    return found


def read_group(group: Group, columns: Sequence[str]) -> pa.Table:
    """The columns of one group.

    Raises:
        DataInvalid: the file is damaged.
    """
    try:
        return _parquet(group.path).read_row_group(group.number, columns=list(columns))
    except (pa.ArrowException, OSError) as error:
        raise DataInvalid(f"{group.path}: cannot be read: {error}") from error


def read(path: Path, columns: Sequence[str]) -> pa.Table:
    """The columns of a whole file; those of a CSV are text, an empty cell being null.

    Raises:
        DataInvalid: the file is empty or damaged, lacks a column or has it twice.
    """
    if not is_csv(path):
        file = _parquet(path)
        _check(path, file.schema_arrow.names, columns, file.metadata.num_rows)
        try:
            return file.read(columns=list(columns))
        except (pa.ArrowException, OSError) as error:
            raise DataInvalid(f"{path}: cannot be read: {error}") from error
    try:
        table = pa.csv.read_csv(
            path,
            read_options=pa.csv.ReadOptions(use_threads=False),
            convert_options=pa.csv.ConvertOptions(
                column_types=dict.fromkeys(columns, pa.string()),
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
    except (pa.ArrowException, OSError) as error:
        empty = "empty: no header and no rows" if "Empty CSV" in str(error) else str(error)
        raise DataInvalid(f"{path}: {empty}") from error
    _check(path, table.column_names, columns, table.num_rows)
    return table.select(list(columns))


def _parquet(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        size = path.stat().st_size if path.is_file() else 0
        raise DataInvalid(f"{path}: {'empty' if not size else error}") from error


def _check(path: Path, has: list[str], columns: Sequence[str], rows: int) -> None:
    for column in columns:
        if (count := has.count(column)) != 1:
            wrong = f"{count} columns {column!r}" if count else f"no column {column!r}"
            raise DataInvalid(f"{path}: {wrong}; it has {', '.join(has)}")
    if not rows:
        raise DataInvalid(f"{path}: empty: no rows below the columns")
