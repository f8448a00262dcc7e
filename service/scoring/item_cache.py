"""The item tensor cache: what the item stage gave, by the content of the item's features.

Tensors lie in the slots of one array and are gathered by index. The key is the 64-bit content hash
of the feature row, so an item whose features change is another key and is never answered from an
old tensor, and items alike in every feature share one. A cache belongs to one model version.

Tensors are evicted by clock (`clock.py`).

Not thread-safe: one version's runs follow each other on one thread.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from service.clock import Clock
from service.hash_index import ABSENT, HashIndex
from service.metrics import Metrics

Tensor = npt.NDArray[np.float32]
UNCACHED = 0
"""The content of rows that are not to be cached: those with inline features."""


class ItemCache:
    """A bounded map from content hash to item tensor.

    Args:
        capacity_bytes: budget for the tensors; less than one tensor turns the cache off.
        width: numbers in a tensor, P.
    """

    def __init__(self, model: str, capacity_bytes: int, width: int, metrics: Metrics) -> None:
        slots = capacity_bytes // (4 * width)
        self._tensors = np.empty((slots, width), np.float32)  # memory comes as slots are filled
        self._contents = np.zeros(slots, np.uint64)
        self._clock = Clock(slots)
        self._index = HashIndex(slots)
        self._kept = 0
        self._gathered = np.empty((0, width), np.float32)
        self._hits = metrics.item_cache.labels(model, "hit")
        self._misses = metrics.item_cache.labels(model, "miss")
        self._evictions = metrics.item_cache_evictions.labels(model)
        self._bytes = metrics.item_cache_bytes.labels(model)

    def gather(
        self,
        contents: npt.NDArray[np.uint64],
        compute: Callable[[npt.NDArray[np.intp]], Tensor],
    ) -> Tensor:
        """The tensors of rows, those not cached computed in one call.

        Args:
            contents: uint64 [N], the rows' content hashes; UNCACHED is always computed.
            compute: row positions [m] -> their tensors [m, P].

        Returns:
            float32 [N, P], good until the next call.
        """
        rows = len(contents)
        slots = self._index.find(contents)
        absent = np.flatnonzero(slots == ABSENT)
        self._hits.inc(rows - len(absent))
        if len(absent) == rows:
            return self._compute(contents, absent, compute)
        if len(self._gathered) < rows:
            self._gathered = np.empty((rows, self._gathered.shape[1]), np.float32)
        gathered = self._gathered[:rows]
        np.take(self._tensors, slots, axis=0, out=gathered, mode="wrap")
        self._clock.asked[slots] = True
        if len(absent):
            gathered[absent] = self._compute(contents, absent, compute)
        return gathered

    def _compute(
        self,
        contents: npt.NDArray[np.uint64],
        absent: npt.NDArray[np.intp],
        compute: Callable[[npt.NDArray[np.intp]], Tensor],
    ) -> Tensor:
        tensors = compute(absent)
        self._misses.inc(len(absent))
        new, rows = np.unique(contents[absent], return_index=True)
        cacheable = new != UNCACHED
        self._keep(new[cacheable], tensors, rows[cacheable])
        return tensors

    def _keep(
        self, contents: npt.NDArray[np.uint64], tensors: Tensor, rows: npt.NDArray[np.intp]
    ) -> None:
        """Store `tensors[rows]` for `contents`, as far as there are slots."""
        slots = self._clock.take(min(len(contents), len(self._contents)))
        contents, rows = contents[: len(slots)], rows[: len(slots)]
        evicted = self._contents[slots]
        evicted = evicted[evicted != UNCACHED]
        self._index.remove(evicted)
        self._tensors[slots] = tensors[rows]
        self._contents[slots] = contents
        displaced = self._index.put(contents, slots)
        self._contents[displaced] = UNCACHED
        self._clock.asked[displaced] = False
        self._kept += len(contents) - len(evicted) - len(displaced)
        self._evictions.inc(len(evicted) + len(displaced))
        self._bytes.set(self._kept * self._tensors.shape[1] * 4)
