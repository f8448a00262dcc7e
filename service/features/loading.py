"""Loading a table into Redis: packed here while the last rows are on their way, resumable, bounded.

After each write a checkpoint says how far the file is loaded. It lies beside the rows, in Redis:
if they are lost, so is it. Who loads the same file again goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from bundle.schema import Entity
from service.features.deployment import Client
from service.features.feature_set import FeatureSet
from service.features.keys import checkpoint_key
from service.features.redis import write_rows
from service.features.table_files import BadRow
from service.features.tables import BATCH_ROWS, Batch, read_table

MOST_REPORTED = 100
"""Bad rows that are named; of the others there is a count."""

Report = Callable[[int, float], None]
"""Called with the rows so far, and the share of the file, 0 to 1."""


class RowsRejected(Exception):
    """A file has bad rows, and nothing of it was written."""

    def __init__(self, bad: BadRows) -> None:
        self.bad = bad
        super().__init__(f"{bad.count} bad rows")


@dataclass
class BadRows:
    """The bad rows of a file: how many, and the first of them."""

    count: int = 0
    first: list[BadRow] = field(default_factory=list)

    def add(self, rows: list[BadRow]) -> None:
        """Count more of them."""
        self.count += len(rows)
        self.first.extend(rows[: MOST_REPORTED - len(self.first)])


@dataclass(frozen=True)
class Loaded:
    """What came of it.

    Attributes:
        rows: written now. resumed_after: rows or lines that were loaded before.
        bad: left out.
    """

    rows: int
    resumed_after: int
    bad: BadRows


def check_table(path: Path, feature_set: FeatureSet, entity: Entity, report: Report) -> None:
    """Read a table and write nothing; raises TableInvalid, or RowsRejected with all bad rows."""
    bad, rows = BadRows(), 0
    layout = feature_set.layout(entity)
    for batch in read_table(path, feature_set.ids[entity], layout):
        bad.add(batch.bad)
        rows += len(batch.rows)
        report(rows, batch.share)
    if bad.count:
        raise RowsRejected(bad)


def load_table(
    client: Client,
    path: Path,
    feature_set: FeatureSet,
    entity: Entity,
    report: Report,
    rate: int | None = None,
    restart: bool = False,
) -> Loaded:
    """Load the good rows of a table, from where an interrupted load of it stopped.

    Args:
        rate: most rows a second. restart: whether to begin anew.

    Raises:
        TableInvalid: not a table, or a column is absent.
        redis.RedisError: what was written until then is remembered.
    """
    checkpoint = _Checkpoint(client, feature_set, entity, path)
    after = 0 if restart else checkpoint.seen()
    bad, rows = BadRows(), 0
    prefix, layout = feature_set.prefix(entity), feature_set.layout(entity)
    size = BATCH_ROWS if rate is None else max(1, min(BATCH_ROWS, rate // 4))
    batches = read_table(path, feature_set.ids[entity], layout, after, size)
    with ThreadPoolExecutor(1, thread_name_prefix="write") as writer:
        writing: Future[None] | None = None
        for batch in batches if rate is None else _at_rate(batches, rate):
            if writing is not None:
                writing.result()
            writing = writer.submit(_write, client, prefix, batch, checkpoint)
            bad.add(batch.bad)
            rows += len(batch.rows)
            report(rows, batch.share)
        if writing is not None:
            writing.result()
    checkpoint.clear()
    return Loaded(rows, after, bad)


def _write(client: Client, prefix: str, batch: Batch, checkpoint: _Checkpoint) -> None:
    write_rows(client, [(prefix + entity_id, row) for entity_id, row in batch.rows])
    checkpoint.advance(batch.seen)


def _at_rate(batches: Iterator[Batch], rate: int) -> Iterator[Batch]:
    due = time.monotonic()
    for batch in batches:
        time.sleep(max(0.0, due - time.monotonic()))
        due = max(due, time.monotonic() - 1.0) + len(batch.rows) / rate
        yield batch


class _Checkpoint:
    """How far a file is loaded; another file, or the same one changed, begins anew."""

    def __init__(self, client: Client, feature_set: FeatureSet, entity: Entity, path: Path) -> None:
        self._client = client
        self._key = checkpoint_key(feature_set.prefix(entity))
        status = path.stat() if path.exists() else None
        self._file = f"{path.resolve()} {status and (status.st_size, status.st_mtime_ns)}"

    def seen(self) -> int:
        stored = self._client.get(self._key)
        if not isinstance(stored, bytes):
            return 0
        found = orjson.loads(stored)
        return int(found["seen"]) if found["file"] == self._file else 0

    def advance(self, seen: int) -> None:
        self._client.set(self._key, orjson.dumps({"file": self._file, "seen": seen}))

    def clear(self) -> None:
        self._client.delete(self._key)
