"""The features stage: ids -> packed rows, in at most one read of the store, and what was not there.

In-process rows first (`cache.py`), then one read for all that is left, users and items together.
A store is anything with the members of `FeatureStore`. Whatever it does, a request waits for it no
longer than its budget, and the answer says what was missing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from bundle.rows import Decoded, RowLayout
from bundle.schema import Entity
from service.errors import FeatureStoreUnavailable
from service.features.cache import EMPTY_SLOT, NOT_CACHED, CachedRows, RowCache, describe
from service.features.keys import UNTRACKED_TTL_S, key_prefix, split_key
from service.metrics import Metrics
from service.values import Keys

log = logging.getLogger(__name__)

_CANCEL_AGAIN_S = 0.1


class FeatureStore(Protocol):
    """Where rows are kept.

    Attributes:
        name: what answers and metrics call it.
        tracked: whether changes are being reported right now.
        generation: counted up whenever any row may have changed without a report.
    """

    name: str
    tracked: bool
    generation: int

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The row of each key, or None; raises FeatureStoreUnavailable."""

    async def follow(self, changed: Callable[[Iterable[str]], None]) -> None:
        """Call `changed` with the keys that are written, until cancelled."""

    async def ping(self) -> None:
        """Raise FeatureStoreUnavailable unless the store can be read."""

    async def close(self) -> None:
        """Give back what the store holds."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A request's rows; those not found are empty.

    Attributes:
        users: one row. items: N rows.
        reasons: why rows are missing, e.g. `redis_unavailable`, `item_not_found`.
    """

    users: CachedRows
    items: CachedRows
    reasons: list[str]


@dataclass(slots=True, eq=False)
class _Read:
    """A read in flight; what changes while it is under way is used once and not kept."""

    generation: int
    changed: set[str] = field(default_factory=set)


class FeatureSource:
    """Reads the rows of a request.

    Args:
        timeout_s: longest wait for the store in one request, seconds.
        on_failure: "defaults" answers with empty rows and a reason, "error" raises.
        cache_bytes: budget of the in-process tier, for each entity of each layout.
        ttl_s: how long a row is believed while the store reports changes, seconds.
    """

    def __init__(
        self,
        store: FeatureStore,
        timeout_s: float,
        on_failure: Literal["defaults", "error"],
        cache_bytes: int,
        ttl_s: float,
        metrics: Metrics,
    ) -> None:
        self.store = store
        self._timeout_s = timeout_s
        self._on_failure = on_failure
        self._cache_bytes = cache_bytes
        self._ttl_s = ttl_s
        self._metrics = metrics
        self._caches: dict[str, RowCache] = {}
        self._generation = store.generation
        self._reading: set[_Read] = set()
        self._reads: set[asyncio.Task[list[bytes | None]]] = set()
        self._following: asyncio.Task[None] | None = None
        stored: tuple[Entity, Entity] = ("user", "item")
        self._cached = {each: metrics.feature_rows.labels(each, "cached") for each in stored}

    def start(self) -> None:
        """Begin to follow the store's changes."""
        self._following = asyncio.create_task(self.store.follow(self._forget))

    async def fetch(
        self,
        feature_set: str,
        layouts: dict[Entity, RowLayout],
        user_id: str | None,
        item_ids: Keys,
        budget_s: float,
    ) -> Fetched:
        """Fetch the user's and the items' rows, in at most one read of the store.

        Args:
            user_id: None when the request brings the user's features itself.
            budget_s: seconds the request has left.

        Raises:
            FeatureStoreUnavailable: the store failed or was late, and `on_failure` is "error".
        """
        if self._generation != self.store.generation:
            self._generation = self.store.generation
            for cache in self._caches.values():
                cache.clear()
        user_ids = None if user_id is None else [user_id]
        user = self._look_up(feature_set, layouts["user"], user_ids)
        item = self._look_up(feature_set, layouts["item"], item_ids)
        reasons: list[str] = []
        if user.keys or item.keys:
            reasons = await self._complete(user, item, min(budget_s, self._timeout_s))
        if not reasons:
            if user_id is not None and not user.rows.found.all():
                reasons.append("user_not_found")
            if not item.rows.found.all():
                reasons.append("item_not_found")
        return Fetched(user.rows, item.rows, reasons)

    def prepare(self, feature_set: str, layouts: dict[Entity, RowLayout]) -> None:
        """Make room for a version's rows before its first request; from any thread."""
        for entity in self._cached:
            self._cache(key_prefix(feature_set, layouts[entity]), layouts[entity])

    def _cache(self, prefix: str, layout: RowLayout) -> RowCache:
        cache = self._caches.get(prefix)
        if cache is None:
            cache = self._caches.setdefault(prefix, RowCache(layout, self._cache_bytes))
        return cache

    def _look_up(self, feature_set: str, layout: RowLayout, ids: Keys | None) -> _Wanted:
        prefix = key_prefix(feature_set, layout)
        wanted = _Wanted(self._cache(prefix, layout), prefix, ids)
        self._cached[layout.entity].inc(wanted.cached)
        return wanted

    async def _complete(self, user: _Wanted, item: _Wanted, budget_s: float) -> list[str]:
        """Read and cache what is not cached; why rows are missing all the same."""
        read = _Read(self.store.generation)
        self._reading.add(read)
        try:
            blobs = await self._read([*user.keys, *item.keys], budget_s)
        except FeatureStoreUnavailable as error:
            late = isinstance(error.__cause__, TimeoutError)
            reason = f"{self.store.name}_{'timeout' if late else 'unavailable'}"
            self._metrics.feature_failures.labels(reason).inc()
            if self._on_failure == "error":
                raise
            log.warning("features are missing: %s", error.detail)
            return [reason]
        finally:
            self._reading.discard(read)
        ttl_s = self._ttl_s if self.store.tracked else UNTRACKED_TTL_S
        reasons: list[str] = []
        for wanted, part in ((user, blobs[: len(user.keys)]), (item, blobs[len(user.keys) :])):
            if part:
                decoded = wanted.cache.layout.decode(part)
                reasons.extend(self._count(wanted.cache.layout.entity, decoded))
                kept = read.generation == self.store.generation
                wanted.fill(decoded, read.changed, ttl_s if kept else 0.0)
        return reasons

    async def _read(self, keys: list[str], budget_s: float) -> list[bytes | None]:
        # A read is waited for, never cancelled: an abandoned command would leave its answer in
        # the connection, and the next caller would get another id's features.
        read = asyncio.ensure_future(self.store.get_many(keys))
        self._reads.add(read)
        read.add_done_callback(self._reads.discard)
        try:
            done, _ = await asyncio.wait({read}, timeout=max(budget_s, 0.0))
        except asyncio.CancelledError:
            read.add_done_callback(_report_late)
            raise
        if not done:
            read.add_done_callback(_report_late)
            late = TimeoutError(f"no answer within {budget_s * 1000:.0f} ms")
            raise FeatureStoreUnavailable(f"{self.store.name}: {late}") from late
        return read.result()

    def _forget(self, keys: Iterable[str]) -> None:
        for key in keys:
            for read in self._reading:
                read.changed.add(key)
            prefix, entity_id = split_key(key)
            if (cache := self._caches.get(prefix)) is not None:
                cache.drop(entity_id)

    def _count(self, entity: str, decoded: Decoded) -> list[str]:
        """Count what became of the rows read; reasons other than that an id is unknown."""
        outcomes = {
            "found": int(decoded.found.sum()),
            "foreign_layout": int(decoded.foreign.sum()),
            "corrupt": int(decoded.corrupt.sum()),
        }
        outcomes["not_found"] = len(decoded.found) - sum(outcomes.values())
        for outcome, count in outcomes.items():
            if count:
                self._metrics.feature_rows.labels(entity, outcome).inc(count)
        return [f"{entity}_{bad}" for bad in ("foreign_layout", "corrupt") if outcomes[bad]]

    async def close(self) -> None:
        """Stop following, let reads end, then close the store."""
        if self._following is not None:
            while not self._following.done():  # redis-py may lose a cancellation while it connects
                self._following.cancel()
                await asyncio.wait({self._following}, timeout=_CANCEL_AGAIN_S)
            await asyncio.gather(self._following, return_exceptions=True)
        if self._reads:
            await asyncio.wait(self._reads)
        await self.store.close()


def _report_late(read: asyncio.Task[list[bytes | None]]) -> None:
    """Nobody waits for this read any more; if it fails, the log says so."""
    if not read.cancelled() and (error := read.exception()) is not None:
        log.warning("a late read of the feature store failed: %s", error)


class _Wanted:
    """The rows that one request wants of one entity, and the keys that must be read for them.

    Rows in the cache are copied at once: by the time a read has ended, others may have reused
    their slots.

    Args:
        ids: None is one row that is nobody's, and empty.
    """

    def __init__(self, cache: RowCache, prefix: str, ids: Keys | None) -> None:
        self.cache = cache
        self._now = time.monotonic()
        self._ids: list[str] = []
        self._places: npt.NDArray[np.intp] | None = None
        self.keys: list[str] = []
        if ids is None:
            self.rows, self.cached = cache.take(np.array([EMPTY_SLOT])), 0
            return
        slots = cache.find(ids, self._now)
        absent = slots == NOT_CACHED
        self.cached = len(ids)
        if absent.any():
            self._places = np.flatnonzero(absent)
            slots[self._places] = EMPTY_SLOT
            self.cached -= len(self._places)
            self._ids = [str(ids[row]) for row in self._places.tolist()]
            self.keys = [f"{prefix}{each}" for each in self._ids]
        self.rows = cache.take(slots)

    def fill(self, decoded: Decoded, changed: set[str], ttl_s: float) -> None:
        """Complete the rows with those that were read, and cache those that did not change."""
        read = describe(self.cache.layout, decoded)
        self.rows.records[self._places] = read.records
        self.cache.put(self._ids, read, self._now, ttl_s)
        if changed:
            for entity_id, key in zip(self._ids, self.keys, strict=True):
                if key in changed:
                    self.cache.drop(entity_id)
