"""Loading a table into Redis: packed here while the last rows are on their way, resumable, bounded.

After each write a checkpoint says how far the file is loaded. It lies beside the rows, in Redis:
if they are lost, so is it, and the load ends there. Who loads the same file again goes on from it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import orjson
import xxhash

from bundle.schema import Entity
from service.features.deployment import Client
from service.features.feature_set import FeatureSet
from service.features.keys import checkpoint_key
from service.features.redis import write_rows
from service.features.table_files import BadRow, TableInvalid
from service.features.tables import BATCH_ROWS, Batch, read_table

MOST_REPORTED = 100
"""Bad rows that are named; of the others there is a count."""

Report = Callable[[int, float], None]
"""Called with the rows so far, and the share of the file, 0 to 1."""


class RowsLost(Exception):
    """Redis has lost rows while they were loaded."""


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
        rows: written now. repeated: those of them whose id came again later, and that are gone.
        bad: left out.
    """

    rows: int
    repeated: int
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
    if not rows:
        raise TableInvalid(f"{path}: has no rows")


def load_table(
    client: Client,
    path: Path,
    feature_set: FeatureSet,
    entity: Entity,
    checkpoint: Checkpoint,
    report: Report,
    rate: int | None = None,
) -> Loaded:
    """Load the good rows of a table, from where its checkpoint says.

    Args:
        rate: most rows a second.

    Raises:
        TableInvalid: not a table, or a column is absent.
        RowsLost: Redis was emptied, or went back to an older state.
        redis.RedisError: what was written until then is remembered.
    """
    bad, rows = BadRows(), 0
    ids = [np.zeros(0, np.uint64)]
    prefix, layout = feature_set.prefix(entity), feature_set.layout(entity)
    size = BATCH_ROWS if rate is None else max(1, min(BATCH_ROWS, rate // 4))
    batches = read_table(path, feature_set.ids[entity], layout, checkpoint.seen, size)
    checkpoint.begin()
    with ThreadPoolExecutor(1, thread_name_prefix="write") as writer:
        writing: Future[None] | None = None
        for batch in batches if rate is None else _at_rate(batches, rate):
            if writing is not None:
                writing.result()
            writing = writer.submit(_write, client, prefix, batch, checkpoint)
            bad.add(batch.bad)
            rows += len(batch.rows)
            hashes = [xxhash.xxh3_64_intdigest(entity_id.encode()) for entity_id, _ in batch.rows]
            ids.append(np.array(hashes, np.uint64))
            report(rows, batch.share)
        if writing is not None:
            writing.result()
    checkpoint.end()
    return Loaded(rows, rows - len(np.unique(np.concatenate(ids))), bad)


def _write(client: Client, prefix: str, batch: Batch, checkpoint: Checkpoint) -> None:
    write_rows(client, [(prefix + entity_id, row) for entity_id, row in batch.rows])
    checkpoint.advance(batch.seen)


def _at_rate(batches: Iterator[Batch], rate: int) -> Iterator[Batch]:
    due = time.monotonic()
    for batch in batches:
        time.sleep(max(0.0, due - time.monotonic()))
        due = max(due, time.monotonic() - 1.0) + len(batch.rows) / rate
        yield batch


class Checkpoint:
    """How far a file is loaded; the same file, once it has changed, is begun anew.

    Args:
        restart: whether to begin anew in any case.

    Attributes:
        seen: rows or lines of the file that are loaded.

    Raises:
        redis.RedisError: Redis does not say.
    """

    def __init__(
        self, client: Client, feature_set: FeatureSet, entity: Entity, path: Path, restart: bool
    ) -> None:
        self._client = client
        file = str(path.resolve())
        self._key = checkpoint_key(
            feature_set.prefix(entity), xxhash.xxh3_64_hexdigest(file.encode())
        )
        status = path.stat() if path.exists() else None
        self._file = f"{file} {status and (status.st_size, status.st_mtime_ns)}"
        self._stored = cast("bytes | None", client.get(self._key))
        found = {} if self._stored is None else orjson.loads(self._stored)
        self.seen = 0 if restart or found.get("file") != self._file else int(found["seen"])

    def begin(self) -> None:
        """Note where the load begins: from now on there is always a note to be found."""
        self._client.set(self._key, self._note(self.seen))

    def advance(self, seen: int) -> None:
        """Note what is loaded; raises RowsLost if the last note is not there any more."""
        last = self._stored
        found = self._client.set(self._key, self._note(seen), get=True)
        if found not in (last, self._stored):  # the new one already: an answer was lost, not a row
            self._client.delete(self._key)
            raise RowsLost("redis has lost rows while they were loaded: load the file again")

    def end(self) -> None:
        """All is loaded."""
        self._client.delete(self._key)

    def _note(self, seen: int) -> bytes:
        self._stored = orjson.dumps({"file": self._file, "seen": seen})
        return self._stored
