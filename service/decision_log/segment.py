"""One file of the log: open, a stream of record batches; closed, a Parquet file.

    <directory>/<model>/<version>/20260101T120000.123456-w0-4711.open       being written, locked
    <directory>/<model>/<version>/20260101T120000.123456-w0-4711.parquet    closed

A stream can be read up to its last whole batch, whatever became of its writer; a Parquet file only
as a whole. So nothing but the batch in hand is lost to a kill, and what a killed process left open
is closed by the next one that starts: its lock is free.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from service.files import check_plain

OPEN, CLOSED = ".open", ".parquet"
_ROW_GROUP_BYTES = 16 << 20


class Segment:
    """An open file, appended to by one thread.

    Raises:
        OSError: it cannot be created or written.
    """

    def __init__(self, directory: Path, stem: str, schema: pa.Schema, now: float) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / f"{stem}{OPEN}"
        self.opened = now
        self.schema = schema
        new = directory / f".{stem}"  # locked before it has the name that others look for
        self._file = new.open("wb", buffering=0)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._writer = pa.ipc.new_stream(self._file, schema)
        new.rename(self.path)

    @property
    def bytes(self) -> int:
        """How large it is."""
        return self._file.tell()

    def append(self, batch: pa.RecordBatch) -> None:
        """Write a batch; a process may be killed afterwards."""
        self._writer.write_batch(batch)

    def close(self) -> Path | None:
        """Close it; returns the Parquet file, or None when it held nothing."""
        with self._file:
            self._writer.close()
            return _convert(self.path)

    def abandon(self) -> None:
        """Let go of it as it is; the next process that starts closes it."""
        self._file.close()


def recover(path: Path) -> Path | None:
    """Close what a dead process left open.

    Returns:
        The Parquet file; None when it held nothing whole, or its writer lives.

    Raises:
        OSError: it cannot be read, or its Parquet file not be written.
    """
    check_plain(path)
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        if not os.fstat(file.fileno()).st_nlink:  # another process was faster
            return None
        return _convert(path)


def whole_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The batches of an open file, up to where its writer came."""
    with path.open("rb") as file:
        try:
            reader = pa.ipc.open_stream(file)
            while True:
                yield reader.read_next_batch()
        except (StopIteration, pa.ArrowInvalid, OSError, EOFError):
            return  # the end, or a batch that its writer was killed in


def _convert(path: Path) -> Path | None:
    target, new = path.with_suffix(CLOSED), path.with_name(f".{path.stem}{CLOSED}")
    writer: pq.ParquetWriter | None = None
    group: list[pa.RecordBatch] = []
    for batch in whole_batches(path):
        writer = writer or pq.ParquetWriter(new, batch.schema, compression="zstd")
        group.append(batch)
        if sum(each.nbytes for each in group) >= _ROW_GROUP_BYTES:
            writer.write_table(pa.Table.from_batches(group))
            group = []
    if writer is None:
        path.unlink()
        return None
    if group:
        writer.write_table(pa.Table.from_batches(group))
    writer.close()
    with new.open("rb") as file:
        os.fsync(file.fileno())
    new.rename(target)
    path.unlink()
    return target
