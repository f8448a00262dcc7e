"""The features stage: ids -> packed rows, in at most one read of the store, and what was not there.

In-process rows first (`cache.py`), then one read for all that is left, users and items together
(`reads.py`). When the store does not answer in time, rows that are no longer believed serve up to
a set age; then the schema's defaults, or an error where the operator wants one. Whatever the store
does, a request waits for it no longer than its budget, and the answer says what was missing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bundle.rows import RowLayout
from bundle.schema import Entity
from service.errors import FeatureStoreUnavailable
from service.features.cache import CachedRows, Outcome
from service.features.caches import STORED, RowCaches
from service.features.keys import key_prefix
from service.features.reads import Reads
from service.features.store import FeatureStore
from service.features.tasks import end
from service.features.wanted import Wanted
from service.metrics import Metrics
from service.values import Keys, OnFailure

_DEADLINE_SHARE = 0.5
"""Most of what a request has left that features may take: the model must have its turn."""

_AHEAD_IDS, _AHEAD_S = 500, 0.5
"""Rows read ahead at a time, and how long in all: they may be thousands."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A request's rows; those that are not there are empty.

    Attributes:
        users: one row. items: N rows.
        failure: why the store was not read, e.g. `redis_timeout`, or "".
        reasons: why rows are missing or old, that included, e.g. `item_not_found`.
        stale: how many rows are older than they should be.
    """

    users: CachedRows
    items: CachedRows
    failure: str
    reasons: list[str]
    stale: Mapping[Entity, int]


class FeatureSource:
    """Reads the rows of a request.

    Args:
        timeout_s: longest wait for the store in one request, seconds.
        on_failure: what to do without a row because the store failed, for a feature set and entity
            ("films/user"), a feature set ("films"), an entity ("user"), and for all ("").
        cache_bytes: budget of the in-process tier, for each entity of each layout.
        ttl_s: how long a row is believed while the store reports changes, seconds.
        stale_s: how long after it was read a row may serve while the store fails, seconds.

    Attributes:
        caches: the rows in process.
    """

    def __init__(
        self,
        store: FeatureStore,
        timeout_s: float,
        on_failure: Mapping[str, OnFailure],
        cache_bytes: int,
        ttl_s: float,
        stale_s: float,
        metrics: Metrics,
    ) -> None:
        self.store = store
        self._timeout_s = timeout_s
        self._on_failure = on_failure
        self._stale_s = stale_s
        self._metrics = metrics
        self.caches = RowCaches(cache_bytes)
        self._generation = store.generation
        self._reads = Reads(store, ttl_s, timeout_s, metrics)
        self._following: asyncio.Task[None] | None = None
        self._cached = {each: metrics.feature_rows.labels(each, "cached") for each in STORED}

    def start(self) -> None:
        """Begin to follow the store's changes."""
        self._following = asyncio.create_task(self.store.follow(self._changed))
        self._metrics.feature_changes_reported.set(self.store.tracked)

    async def fetch(
        self,
        feature_set: str,
        layouts: dict[Entity, RowLayout],
        user_id: str | None,
        item_ids: Keys,
        left_s: float,
    ) -> Fetched:
        """Fetch the user's and the items' rows, in at most one read of the store.

        Args:
            user_id: None when the request brings the user's features itself.
            left_s: seconds the request has left; half of them are for the features at most.

        Raises:
            FeatureStoreUnavailable: the store failed or was late, nothing served in place of a
                row, and `on_failure` is "error".
        """
        if self._generation != self.store.generation:
            self._generation = self.store.generation
            self._metrics.feature_changes_reported.set(self.store.tracked)
            self._reads.all_changed()
            self.caches.expire_all()
        self._reads.keep()
        user_ids = None if user_id is None else [user_id]
        user = self._look_up(feature_set, layouts["user"], user_ids)
        item = self._look_up(feature_set, layouts["item"], item_ids)
        reason = ""
        reasons: list[str] = []
        stale: dict[Entity, int] = {}
        if len(user.places) or len(item.places):
            budget_s = min(left_s * _DEADLINE_SHARE, self._timeout_s)
            if failure := await self._reads.complete((user, item), budget_s):
                reason = f"{self.store.name}_{failure}"
                self._metrics.feature_failures.labels(reason).inc()
                reasons.append(reason)
                stale = self._use_stale(feature_set, (user, item), reason, budget_s)
                reasons.extend(f"{entity}_stale" for entity in stale)
        if user_id is not None and not user.rows.found.all():
            reasons.extend(_outcomes("user", user.rows))
        if not item.rows.found.all():
            reasons.extend(_outcomes("item", item.rows))
        return Fetched(user.rows, item.rows, reason, reasons, stale)

    async def read_ahead(
        self, feature_set: str, layouts: dict[Entity, RowLayout]
    ) -> tuple[int, int]:
        """Read the rows, in a layout that is new here, of the items that are asked for most.

        Returns:
            How many the store was asked for, and how many of them it has; none were where the
            layout is not new, nothing was asked for yet, or the store does not answer.
        """
        layout = layouts["item"]
        cache = self.caches.of(key_prefix(feature_set, layout), layout)
        if len(cache.hot()):
            return 0, 0
        ids = self.caches.hot_ids(feature_set)
        asked = known = 0
        ends = time.monotonic() + _AHEAD_S
        while asked < len(ids) and time.monotonic() < ends:
            part = ids[asked : asked + _AHEAD_IDS]
            try:
                fetched = await self.fetch(feature_set, layouts, None, part, _AHEAD_S)
            except FeatureStoreUnavailable:
                break
            if fetched.failure:
                break
            asked += len(part)
            known += int(fetched.items.found.sum())
        self._reads.keep()
        cache.ask_for(ids[:asked])
        return asked, known

    def _look_up(self, feature_set: str, layout: RowLayout, ids: Keys | None) -> Wanted:
        prefix = key_prefix(feature_set, layout)
        wanted = Wanted(self.caches.of(prefix, layout), prefix, ids, time.monotonic())
        self._cached[layout.entity].inc(wanted.cached)
        return wanted

    def _use_stale(
        self, feature_set: str, wanted: Sequence[Wanted], reason: str, budget_s: float
    ) -> dict[Entity, int]:
        """Let old rows serve; how many did, of each entity."""
        stale: dict[Entity, int] = {}
        read_since = time.monotonic() - self._stale_s
        for each in wanted:
            entity = each.cache.layout.entity
            if used := each.use_stale(read_since):
                stale[entity] = used
                self._metrics.feature_rows.labels(entity, "stale").inc(used)
            unread = int((each.rows.outcome[each.places] == Outcome.UNREAD).sum())
            if not unread:
                continue
            self._metrics.feature_rows.labels(entity, "unread").inc(unread)
            if self._policy(feature_set, entity) == "error":
                raise FeatureStoreUnavailable(
                    f"{reason}: {unread} {entity} rows could not be read within "
                    f"{budget_s * 1000:.0f} ms; ask again, or allow defaults"
                )
        return stale

    def _policy(self, feature_set: str, entity: Entity) -> OnFailure:
        names = (f"{feature_set}/{entity}", feature_set, entity, "")
        return next(self._on_failure[name] for name in names if name in self._on_failure)

    def _changed(self, keys: Iterable[str]) -> None:
        self._reads.keep()
        self.caches.expire(keys)

    async def close(self) -> None:
        """Stop following, let reads end, then close the store."""
        if self._following is not None:
            await end([self._following])
        await self._reads.finish()
        await self.store.close()


def _outcomes(entity: Entity, rows: CachedRows) -> list[str]:
    """Why rows are empty, other than that the store could not be read."""
    seen = np.unique(rows.outcome).tolist()
    silent = (Outcome.FOUND, Outcome.UNREAD)
    return [f"{entity}_{Outcome(each).name.lower()}" for each in seen if each not in silent]
