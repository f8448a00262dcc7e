"""The in-process tier: a cache of rows for each layout of each feature set's entities."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from bundle.rows import RowLayout
from bundle.schema import Entity
from service.features.cache import RowCache
from service.features.keys import entity_prefix, key_prefix, split_key
from service.values import Candidates

STORED: tuple[Entity, Entity] = ("user", "item")
"""What has rows; a context comes with its request."""
_MOST_HOT = 20_000


class RowCaches:
    """Caches by the prefix of their rows' keys.

    Args:
        cache_bytes: budget of each.
    """

    def __init__(self, cache_bytes: int) -> None:
        self._cache_bytes = cache_bytes
        self._caches: dict[str, RowCache] = {}

    def of(self, prefix: str, layout: RowLayout) -> RowCache:
        """The cache of a layout's rows, empty if it is new here; from any thread."""
        cache = self._caches.get(prefix)
        if cache is None:
            cache = self._caches.setdefault(prefix, RowCache(layout, self._cache_bytes))
        return cache

    def prepare(self, feature_set: str, layouts: Mapping[Entity, RowLayout]) -> None:
        """Make room for a version's rows before its first request; from any thread."""
        for entity in STORED:
            self.of(key_prefix(feature_set, layouts[entity]), layouts[entity])

    def expire(self, keys: Iterable[str]) -> None:
        """Believe rows no longer; they have changed."""
        of_prefix: dict[str, list[str]] = {}
        for key in keys:
            prefix, entity_id = split_key(key)
            if prefix in self._caches:
                of_prefix.setdefault(prefix, []).append(entity_id)
        for prefix, ids in of_prefix.items():
            self._caches[prefix].expire(ids)

    def expire_all(self) -> None:
        """Believe nothing any longer."""
        for cache in self._caches.values():
            cache.expire_all()

    def hot_items(self, feature_set: str, layout: RowLayout, rows: int) -> Iterator[Candidates]:
        """The items that are asked for most, as far as rows of this layout are in process.

        Args:
            rows: most rows of one part.
        """
        cache = self.of(key_prefix(feature_set, layout), layout)
        slots = cache.hot()[:_MOST_HOT]
        for start in range(0, len(slots), rows):
            found = cache.take(slots[start : start + rows])
            yield Candidates(found.rows, found.content)

    def hot_ids(self, feature_set: str) -> list[str]:
        """Of the items that are asked for most, whichever the layout of their rows."""
        ids: dict[str, None] = {}
        for prefix, cache in list(self._caches.items()):
            if prefix.startswith(entity_prefix(feature_set, "item")):
                ids |= dict.fromkeys(cache.ids_of(cache.hot()[:_MOST_HOT]))
        return list(ids)
