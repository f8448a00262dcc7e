"""The log of a process: a sample of its decisions, handed over at once, written on a thread.

A request pays for a hash of its id, and if it is in the sample for one append to a bounded queue.
When the queue is full, a decision is dropped and counted; nobody waits for a disk.
"""

from __future__ import annotations

import datetime as dt
import itertools
import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import xxhash

from bundle.manifest import Manifest
from bundle.rows import Rows
from bundle.schema import Entity
from service.cores import lower_priority
from service.decision_log.batches import Decision, batch_of, schema_of
from service.decision_log.segment import CLOSED, OPEN, Segment, recover
from service.metrics import Metrics
from service.values import Query, Ranked, Scored

log = logging.getLogger(__name__)

_QUEUE_BYTES = 64 << 20
_WRITE_EVERY_S = 0.25
_HASHES = 1 << 64
_Version = tuple[str, int]


@dataclass(frozen=True)
class LogOptions:
    """Where decisions go, and how many.

    Attributes:
        rate: share of the requests; by the hash of their id, so the same ones in every process.
        file_bytes, file_s: a file is closed at this size or age, whichever is first.
        total_bytes: of all files; beyond, the oldest closed ones are deleted.
    """

    directory: Path
    rate: float
    file_bytes: int
    file_s: float
    total_bytes: int


class DecisionLog:
    """Takes decisions from the event loop and writes them.

    Args:
        worker: index of the process among the workers; its files are its own.
    """

    def __init__(self, options: LogOptions, worker: int, metrics: Metrics) -> None:
        self._options = options
        self._worker = worker
        self._decisions = metrics.decisions
        self._files = metrics.decision_files
        self._threshold = int(options.rate * _HASHES)
        self._lock = threading.Lock()
        self._queue: list[Decision] = []
        self._queued_bytes = 0
        self._closing = threading.Event()
        self._segments: dict[_Version, Segment] = {}
        self._numbers = itertools.count()
        self._failing = False
        # a daemon: a process that fails to start ends, and what it left open can be read
        self._thread = threading.Thread(target=self._run, name="decisions", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def samples(self, request_id: str) -> bool:
        """Whether a request is in the sample."""
        hashed = xxhash.xxh3_64_intdigest(request_id.encode("utf-8", "surrogatepass"))
        return hashed < self._threshold

    def offer(
        self,
        query: Query,
        answer: Scored | Ranked,
        rows: Mapping[Entity, Rows],
        manifest: Manifest,
    ) -> None:
        """Log a decision if it is in the sample; the arrays must not change afterwards."""
        if not self.samples(query.request_id):
            return
        ranked = answer if isinstance(answer, Ranked) else None
        scored = answer.scored if isinstance(answer, Ranked) else answer
        at_us = time.time_ns() // 1000
        decision = Decision(at_us, query, scored, ranked, rows, manifest)
        size = decision.bytes
        with self._lock:
            fits = self._queued_bytes + size <= _QUEUE_BYTES and not self._closing.is_set()
            if fits:
                self._queue.append(decision)
                self._queued_bytes += size
        if not fits:
            self._decisions.labels(scored.model, "dropped").inc()

    def close(self) -> None:
        """Write what is queued and close all files; blocks."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        lower_priority()
        self._recover()
        while not (last := self._closing.wait(_WRITE_EVERY_S)):
            self._step(last)
        self._step(last)

    def _step(self, last: bool) -> None:
        with self._lock:
            decisions, self._queue = self._queue, []
            self._queued_bytes = 0
        by_version: dict[_Version, list[Decision]] = {}
        for each in decisions:
            by_version.setdefault((each.scored.model, each.scored.version), []).append(each)
        for version, some in by_version.items():
            self._write(version, some)
        now = time.monotonic()
        for version, segment in list(self._segments.items()):
            old = now - segment.opened >= self._options.file_s
            if last or old or segment.bytes >= self._options.file_bytes:
                self._close(version)

    def _write(self, version: _Version, decisions: Sequence[Decision]) -> None:
        try:
            segment = self._segments.get(version) or self._open(version, decisions[0].manifest)
            segment.append(batch_of(decisions, segment.schema))
        except (OSError, TypeError, ValueError, pa.ArrowException) as error:
            if len(decisions) > 1 and not isinstance(error, OSError):
                for each in decisions:  # one of them may be at fault
                    self._write(version, [each])
                return
            self._decisions.labels(version[0], "failed").inc(len(decisions))
            if not self._failing:  # a full disk would be in the log four times a second
                log.exception("%s version %d: decisions are not logged", *version)
            self._failing = True
            if isinstance(error, OSError) and (broken := self._segments.pop(version, None)):
                broken.abandon()
        else:
            self._decisions.labels(version[0], "written").inc(len(decisions))
            self._failing = False

    def _open(self, version: _Version, manifest: Manifest) -> Segment:
        model, number = version
        started = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%S.%f")
        stem = f"{started}-w{self._worker}-{os.getpid()}-{next(self._numbers)}"
        directory = self._options.directory / model / str(number)
        segment = Segment(directory, stem, schema_of(manifest), time.monotonic())
        self._segments[version] = segment
        return segment

    def _close(self, version: _Version) -> None:
        segment = self._segments.pop(version)
        try:
            segment.close()
            self._files.labels("closed").inc()
            self._drop_oldest()
        except (OSError, pa.ArrowException):
            self._files.labels("failed").inc()
            log.exception("%s: cannot be closed; the next start will try again", segment.path)

    def _recover(self) -> None:
        for path in sorted(self._options.directory.glob(f"*/*/*{OPEN}")):
            try:
                if recover(path) is not None:
                    self._files.labels("recovered").inc()
                    log.info("%s: closed, its process is gone", path)
            except FileNotFoundError:  # another worker was faster
                continue
            except (OSError, pa.ArrowException):
                self._files.labels("failed").inc()
                log.exception("%s: left open by a process that is gone, cannot be closed", path)

    def _drop_oldest(self) -> None:
        sizes: dict[Path, int] = {}
        for path in self._options.directory.glob("*/*/*"):
            try:
                sizes[path] = path.stat().st_size
            except FileNotFoundError:  # another worker's
                continue
        total = sum(sizes.values())
        closed = sorted((path for path in sizes if path.suffix == CLOSED), key=lambda p: p.name)
        for path in closed:
            if total <= self._options.total_bytes:
                return
            path.unlink(missing_ok=True)
            total -= sizes[path]
            self._files.labels("deleted").inc()
