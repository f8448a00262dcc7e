"""The rows that one request wants of one entity, and those of them that must be read."""

from __future__ import annotations

import numpy as np

from service.clock import Slots
from service.features.cache import CachedRows, Outcome, RowCache
from service.hash_index import ABSENT
from service.values import Keys


class Wanted:
    """The rows that one request wants of one entity.

    Rows in the cache are copied at once: by the time a read has ended, others may have reused
    their slots.

    Args:
        prefix: of the keys of these rows. ids: None is one row that is nobody's, and empty.

    Attributes:
        cached: how many of the rows were in process.
        places: [m] positions among the wanted ids that must be read. slots: [m], see
            `RowCache.look_up`.
    """

    __slots__ = ("_count", "_ids", "_rows", "cache", "cached", "places", "prefix", "slots")

    def __init__(self, cache: RowCache, prefix: str, ids: Keys | None, now: float) -> None:
        self.cache = cache
        self.prefix = prefix
        self._ids: Keys = [] if ids is None else ids
        self._count = 1 if ids is None else len(ids)
        self._rows, self.places, self.slots = cache.look_up(self._ids, now)
        if ids is None:
            self._rows = None
        self.cached = len(self._ids) - len(self.places)

    @property
    def rows(self) -> CachedRows:
        """One a wanted id; the empty row where none was put."""
        if self._rows is None:
            self._rows = self.cache.nothing(self._count)
        return self._rows

    def ids(self, places: Slots) -> Keys:
        """The ids at `places`, in ascending order."""
        if len(places) == len(self._ids):
            return self._ids
        if isinstance(self._ids, np.ndarray):
            return self._ids[places]
        return [self._ids[each] for each in places.tolist()]

    def fill(self, places: Slots, rows: CachedRows) -> None:
        """Put rows that were read in their places."""
        if len(places) == self._count:
            self._rows = rows
        else:
            self.rows.put(places, rows)

    def use_stale(self, read_since: float) -> int:
        """Fill what was not read with rows that were, at `read_since` or later; their number."""
        unread = self.places[self.rows.outcome[self.places] == Outcome.UNREAD]
        slots = self.cache.find_stale(self.ids(unread), read_since)
        usable = slots != ABSENT
        self.rows.put(unread[usable], self.cache.take(slots[usable]))
        return int(usable.sum())
