"""Feature tables on disk: Parquet -> packed, sealed rows by id, for whatever store is loaded."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from bundle.errors import ValueRejected
from bundle.rows import RowLayout
from bundle.schema import Entity
from bundle.store import Bundle

BATCH_ROWS = 4096


class TableInvalid(Exception):
    """A feature table cannot be loaded; the message names file, column and row."""


def feature_file(bundle: Bundle, entity: Entity, file: Path | None) -> tuple[Path, str]:
    """The table to load for an entity, and its id column: `file`, else the bundle's sample.

    Raises:
        TableInvalid: neither is there.
    """
    sample = bundle.manifest.samples.get(entity)
    if file is not None:
        return file, sample.key if sample else f"{entity}_id"
    if sample is None:
        raise TableInvalid(f"the bundle has no sample of {entity} features: name a Parquet file")
    return bundle.path / sample.file, sample.key


def table_rows(path: Path) -> int:
    """Number of rows of a Parquet file; raises TableInvalid when it is not one."""
    return int(_open(path).metadata.num_rows)


def read_table(path: Path, key: str, layout: RowLayout) -> Iterator[list[tuple[str, bytes]]]:
    """Read a Parquet file in batches of (id, packed row).

    Args:
        key: the column that holds the ids. It may be a feature as well.
        layout: of the entity's rows; every feature of it must be a column, others are ignored.

    Raises:
        TableInvalid: not a Parquet file, a column is absent, or a value does not fit.
    """
    file = _open(path)
    names = set(file.schema_arrow.names)
    wanted = {key, *layout.slots}
    if absent := wanted - names:
        raise TableInvalid(
            f"{path}: no column {', '.join(sorted(absent))}; "
            f"the file has {', '.join(sorted(names))}"
        )
    written_ms = time.time_ns() // 1_000_000
    start = 0
    for batch in file.iter_batches(BATCH_ROWS, columns=sorted(wanted)):
        columns = {name: batch.column(name).to_pylist() for name in wanted}
        ids = columns[key]
        if None in ids:
            raise TableInvalid(f"{path}: {key}: row {start + ids.index(None)} has no id")
        try:
            rows = layout.pack({name: columns[name] for name in layout.slots}, len(ids))
        except ValueRejected as error:
            row = start + (error.row or 0)
            raise TableInvalid(f"{path}: {error.feature}: row {row}: {error.reason}") from error
        layout.seal(rows, written_ms)
        yield [(str(entity_id), row.tobytes()) for entity_id, row in zip(ids, rows, strict=True)]
        start += len(ids)


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (OSError, ValueError) as error:
        raise TableInvalid(f"{path}: not a readable Parquet file: {error}") from error
