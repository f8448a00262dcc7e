"""Reads of the store under way: an id is read once, however many requests wait for it.

A read is never cancelled: an abandoned command would leave its answer in the connection, and the
next caller would get another id's row. It lands in the in-process tier, in time or late.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from bundle.rows import Decoded
from service.errors import FeatureStoreUnavailable
from service.features.breaker import STATES, CircuitBreaker, State
from service.features.cache import (
    CachedRows,
    Outcome,
    RowCache,
    describe,
)
from service.features.keys import UNTRACKED_TTL_S
from service.features.store import FeatureStore
from service.hash_index import ABSENT
from service.metrics import Metrics
from service.values import Keys

log = logging.getLogger(__name__)

Records = npt.NDArray[np.void]


class Wanted:
    """The rows that one request wants of one entity, and those of them that are not in process.

    Rows in the cache are copied at once: by the time a read has ended, others may have reused
    their slots.

    Args:
        ids: None is one row that is nobody's, and empty.

    Attributes:
        rows: one a wanted id. cached: how many of them were in process.
        places: positions among `rows` that must be read. ids, keys: of these.
        numbers: int64, the same ids where all are whole numbers.
    """

    __slots__ = ("cache", "cached", "ids", "keys", "numbers", "places", "prefix", "rows")

    def __init__(self, cache: RowCache, prefix: str, ids: Keys | None, now: float) -> None:
        self.cache = cache
        self.prefix = prefix
        self.ids: list[str] = []
        self.keys: list[str] = []
        self.rows, self.places = cache.look_up(ids, now)
        self.cached = 0 if ids is None else len(ids) - len(self.places)
        self.numbers: npt.NDArray[np.int64] | None = None
        if ids is None or not self.places:
            return
        if isinstance(ids, np.ndarray):
            self.numbers = ids[self.places]
            self.ids = list(map(str, self.numbers.tolist()))
        else:
            self.ids = [ids[row] for row in self.places]
        self.keys = [prefix + each for each in self.ids]

    def fill(self, places: list[int], records: Records) -> None:
        """Put copies of rows that were read in their places."""
        if len(places) == len(self.rows.records):
            self.rows = CachedRows(records.copy())
        else:
            self.rows.records[places] = records

    def use_stale(self, read_since: float) -> int:
        """Fill what was not read with rows that were, at `read_since` or later; their number."""
        unread = [n for n, p in enumerate(self.places) if self.rows.outcome[p] == Outcome.UNREAD]
        slots = self.cache.find_stale([self.ids[n] for n in unread], read_since)
        usable = np.flatnonzero(slots != ABSENT)
        places = [self.places[unread[n]] for n in usable.tolist()]
        self.rows.records[places] = self.cache.take(slots[usable]).records
        return len(places)


class _Part:
    """The rows of one entity in a read."""

    __slots__ = ("_row_of", "cache", "ids", "keys", "landed", "numbers")

    def __init__(
        self,
        cache: RowCache,
        ids: list[str],
        keys: list[str],
        numbers: npt.NDArray[np.int64] | None = None,
    ) -> None:
        self.cache = cache
        self.ids = ids
        self.keys = keys
        self.numbers = numbers
        self.landed: CachedRows | None = None
        self._row_of: dict[str, int] | None = None

    def take(self, keys: list[str]) -> Records:
        """The rows of `keys`, once they have landed."""
        assert self.landed is not None
        if keys is self.keys:
            return self.landed.records
        if self._row_of is None:
            self._row_of = {key: row for row, key in enumerate(self.keys)}
        return self.landed.records[[self._row_of[key] for key in keys]]


class Read:
    """One read of the store under way.

    Attributes:
        task: ends when the read has, whether it failed or not.
        failure: why there are no rows.
    """

    __slots__ = ("changed", "failure", "generation", "landed", "late", "parts", "started", "task")

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.parts: dict[str, _Part] = {}
        self.started = time.monotonic()
        self.changed: set[str] = set()  # used once, and not believed afterwards
        self.landed: list[Decoded] = []  # one a part
        self.late = False
        self.failure: FeatureStoreUnavailable | None = None
        self.task: asyncio.Task[None]


class Reads:
    """Starts reads, lets requests join those under way, and puts into the cache what they bring.

    Args:
        ttl_s: how long a row is believed while the store reports changes, seconds.
        late_s: a read that takes longer counts against the store, seconds.
    """

    def __init__(self, store: FeatureStore, ttl_s: float, late_s: float, metrics: Metrics) -> None:
        self._store = store
        self._ttl_s = ttl_s
        self._late_s = late_s
        self._metrics = metrics
        self._breaker = CircuitBreaker(store.name, self._circuit)
        self._circuit("closed")
        self._reading: dict[str, Read] = {}
        self._to_keep: list[Read] = []
        self._unfinished: set[asyncio.Task[None]] = set()

    async def complete(self, wanted: Sequence[Wanted], budget_s: float) -> str:
        """Fill in the rows that are not in process, as far as the store gives them in time.

        Returns:
            Why rows are missing: "", "circuit_open", "timeout" or "unavailable".
        """
        own, shares = self._share(wanted)
        if self._breaker.state != "closed" and not (own and self._breaker.admits()):
            return "circuit_open"
        if own is not None:
            self._start(own)
        tasks = {read.task for read, *_ in shares}
        pending = (await asyncio.wait(tasks, timeout=max(budget_s, 0.0)))[1]
        failure = "timeout" if pending else ""
        for read, each, places, keys in shares:
            if read.task in pending:
                self._note_late(read)
                continue
            read.task.result()  # what is not the store's failure is ours: let it be heard
            if read.failure is not None:
                failure = "unavailable"
            else:
                each.fill(places, read.parts[each.prefix].take(keys))
        return failure

    def _share(
        self, wanted: Sequence[Wanted]
    ) -> tuple[Read | None, list[tuple[Read, Wanted, list[int], list[str]]]]:
        """What is read anew and what is awaited: (read, for whom, places, keys) each."""
        own = Read(self._store.generation)
        shares = []
        for each in wanted:
            if not each.keys:
                continue
            if self._reading.keys().isdisjoint(each.keys) and len(set(each.keys)) == len(each.keys):
                own.parts[each.prefix] = _Part(each.cache, each.ids, each.keys, each.numbers)
                shares.append((own, each, each.places, each.keys))
                continue
            joined: dict[Read, tuple[list[int], list[str]]] = {}
            new: dict[str, str] = {}
            for place, entity_id, key in zip(each.places, each.ids, each.keys, strict=True):
                read = self._reading.get(key, own)
                if read is own:
                    new[key] = entity_id
                places, keys = joined.setdefault(read, ([], []))
                places.append(place)
                keys.append(key)
            if new:
                own.parts[each.prefix] = _Part(each.cache, list(new.values()), list(new))
            shares.extend((read, each, *what) for read, what in joined.items())
        return own if own.parts else None, shares

    def _start(self, read: Read) -> None:
        keys = [key for part in read.parts.values() for key in part.keys]
        self._reading.update(dict.fromkeys(keys, read))
        read.task = asyncio.ensure_future(self._land(read, keys))
        self._unfinished.add(read.task)
        read.task.add_done_callback(partial(self._landed, read))

    def _landed(self, read: Read, task: asyncio.Task[None]) -> None:
        self._unfinished.discard(task)
        if read.landed:
            self._to_keep.append(read)
            loop = task.get_loop()
            loop.call_soon(loop.call_soon, self._keep_all)  # those who wait for it go on first

    async def _land(self, read: Read, keys: list[str]) -> None:
        """Read; those who wait have their rows when this ends."""
        try:
            blobs = await self._store.get_many(keys)
        except FeatureStoreUnavailable as error:
            read.failure = error
            self._leave(read)
            self._breaker.failed()
            log.warning("features are missing: %s", error.detail)
            return
        self._breaker.succeeded()
        start = 0
        for part in read.parts.values():
            decoded = part.cache.layout.decode(blobs[start : start + len(part.keys)])
            start += len(part.keys)
            part.landed = describe(part.cache.layout, decoded)
            read.landed.append(decoded)

    def keeps(self, keys: list[str]) -> bool:
        """Whether some of `keys` have landed and were not in the cache yet; now they are."""
        found = bool(self._to_keep) and not self._reading.keys().isdisjoint(keys)
        if found:
            self._keep_all()
        return found

    def _keep_all(self) -> None:
        """Put what has landed into the cache."""
        to_keep, self._to_keep = self._to_keep, []
        for read in to_keep:
            self._leave(read)
            self._keep(read)

    def _keep(self, read: Read) -> None:
        believed = read.generation == self._store.generation
        ttl_s = (self._ttl_s if self._store.tracked else UNTRACKED_TTL_S) if believed else 0.0
        for part, decoded in zip(read.parts.values(), read.landed, strict=True):
            assert part.landed is not None
            self._count(part.cache.layout.entity, decoded)
            part.cache.put(part.ids, part.landed, read.started, ttl_s, part.numbers)
            if read.changed:
                for entity_id, key in zip(part.ids, part.keys, strict=True):
                    if key in read.changed:
                        part.cache.expire(entity_id)

    def _leave(self, read: Read) -> None:
        for part in read.parts.values():
            for key in part.keys:
                if self._reading.get(key) is read:
                    del self._reading[key]

    def _note_late(self, read: Read) -> None:
        if not read.late and time.monotonic() - read.started >= self._late_s:
            read.late = True
            self._breaker.failed()

    def changed(self, keys: Iterable[str]) -> None:
        """These rows have changed: what is being read of them may be their past."""
        for key in keys:
            if (read := self._reading.pop(key, None)) is not None:
                read.changed.add(key)

    def all_changed(self) -> None:
        """Any row may have changed; `generation` says so of the reads under way."""
        self._reading.clear()

    async def finish(self) -> None:
        """Wait for the reads under way."""
        if self._unfinished:
            await asyncio.wait(self._unfinished)

    def _count(self, entity: str, decoded: Decoded) -> None:
        outcomes = {
            Outcome.FOUND: int(decoded.found.sum()),
            Outcome.FOREIGN_LAYOUT: int(decoded.foreign.sum()),
            Outcome.CORRUPT: int(decoded.corrupt.sum()),
        }
        outcomes[Outcome.NOT_FOUND] = len(decoded.found) - sum(outcomes.values())
        for outcome, count in outcomes.items():
            if count:
                self._metrics.feature_rows.labels(entity, outcome.name.lower()).inc(count)

    def _circuit(self, state: State) -> None:
        for each in STATES:
            self._metrics.feature_circuit.labels(each).set(each == state)
