"""The item tensor cache: what the item stage gave, by the content of the item's features.

Tensors lie in the slots of one array and are gathered by index. The key is the 64-bit content hash
of the feature row, so an item whose features change is another key and is never answered from an
old tensor, and items alike in every feature share one. A cache belongs to one model version.

They may be kept as float16: twice as many have room, and a run reads half as much. Whatever is
computed is then rounded to what would be kept: a score does not depend on what was in the cache.

Tensors are evicted by clock (`clock.py`).

Not thread-safe: one version's runs follow each other on one thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt

from service.clock import Clock
from service.hash_index import ABSENT, HashIndex
from service.metrics import Metrics
from service.native.library import Kept, Places, Tensor
from service.native.memory import copy_rows
from service.scoring.tensor_memory import TensorMemory

UNCACHED = 0
"""The content of rows that are not to be cached: those with inline features."""

_NONE: npt.NDArray[np.int64] = np.zeros(0, np.int64)


class ItemTensors(Protocol):
    """The item tensors of N rows: an array [N, P], or what is sliced like one."""

    def __len__(self) -> int:
        """N."""

    def __getitem__(self, rows: slice, /) -> Tensor:
        """float32 [n, P], good until the next slice is taken."""


def located(tensors: ItemTensors, rows: slice) -> tuple[Kept, Places]:
    """Where the tensors of n rows lie: an array [I, P], and for each row its place there."""
    if isinstance(tensors, _Cached) and not len(tensors.absent):
        return tensors.cache.tensors, tensors.slots[rows]
    found = tensors[rows]
    return found, np.arange(len(found))


class ItemCache:
    """A bounded map from content hash to item tensor.

    Args:
        capacity_bytes: budget for the tensors; less than one tensor turns the cache off.
        width: numbers in a tensor, P.
        memory: has their memory, as long as there is this cache.

    Attributes:
        tensors: float32 or float16 [slots, P].
    """

    def __init__(
        self,
        model: str,
        capacity_bytes: int,
        width: int,
        metrics: Metrics,
        memory: TensorMemory,
    ) -> None:
        slots = capacity_bytes // (memory.dtype.itemsize * width)
        self.tensors = memory.take(self, slots, width)
        self._contents = np.zeros(slots, np.uint64)
        self._clock = Clock(slots)
        self._index = HashIndex(slots)
        self._kept = 0
        self._gathered = np.empty((0, width), memory.dtype)  # the rows of one slice
        self._none_computed = np.empty((0, width), np.float32)
        self._hits = metrics.item_cache.labels(model, "hit")
        self._misses = metrics.item_cache.labels(model, "miss")
        self._evictions = metrics.item_cache_evictions.labels(model)
        self._bytes = metrics.item_cache_bytes.labels(model)

    def gather(
        self,
        contents: npt.NDArray[np.uint64],
        compute: Callable[[npt.NDArray[np.intp]], Tensor],
    ) -> ItemTensors:
        """The tensors of rows, those not cached computed in one call.

        Args:
            contents: uint64 [N], the rows' content hashes; UNCACHED is always computed.
            compute: row positions [m] -> their tensors [m, P].

        Returns:
            [N, P], good until the next call. What is cached is copied together as it is sliced,
            so that who reads it next finds it in the processor's own cache.
        """
        rows = len(contents)
        slots = self._index.find(contents)
        absent = np.flatnonzero(slots == ABSENT)
        self._hits.inc(rows - len(absent))
        if len(absent) == rows:
            return self._compute(contents, absent, compute, kept=_NONE)
        if not len(absent):
            self._clock.asked[slots] = True
            return _Cached(self, slots, absent, self._none_computed)
        present = np.unique(slots[slots != ABSENT])
        self._clock.asked[present] = True
        return _Cached(self, slots, absent, self._compute(contents, absent, compute, kept=present))

    def copy(self, slots: npt.NDArray[np.int64]) -> Tensor:
        """What lies in n slots, float32 [n, P], in memory that the next call uses again."""
        if len(self._gathered) < len(slots):
            self._gathered = np.empty((len(slots), self._gathered.shape[1]), self.tensors.dtype)
        copied = self._gathered[: len(slots)]
        taken = np.take(self.tensors, slots, axis=0, out=copied, mode="wrap")
        return taken.astype(np.float32, copy=False)

    def rounded(self, tensors: Tensor) -> Tensor:
        """Tensors float32 [n, P] as they would come out of here; what is too large is infinite."""
        return self._as_kept(tensors).astype(np.float32, copy=False)

    def _as_kept(self, tensors: Tensor) -> Kept:
        with np.errstate(over="ignore"):  # scores that come of it are null, and counted
            return cast("Kept", tensors.astype(self.tensors.dtype, copy=False))

    def _compute(
        self,
        contents: npt.NDArray[np.uint64],
        absent: npt.NDArray[np.intp],
        compute: Callable[[npt.NDArray[np.intp]], Tensor],
        kept: npt.NDArray[np.int64],
    ) -> Tensor:
        """The tensors [m, P] of absent rows, stored in slots other than those `kept`."""
        tensors = self._as_kept(compute(absent))
        if len(tensors) != len(absent):
            raise ValueError(f"{len(tensors)} item tensors where {len(absent)} are due")
        self._misses.inc(len(absent))
        new, rows = np.unique(contents[absent], return_index=True)
        cacheable = new != UNCACHED
        self._keep(new[cacheable], tensors, rows[cacheable], kept)
        return tensors.astype(np.float32, copy=False)

    def _keep(
        self,
        contents: npt.NDArray[np.uint64],
        tensors: Kept,
        rows: npt.NDArray[np.intp],
        kept: npt.NDArray[np.int64],
    ) -> None:
        """Store `tensors[rows]` for `contents`, as far as there are slots beside those `kept`."""
        slots = self._clock.take(min(len(contents), len(self._contents) - len(kept)), kept)
        contents, rows = contents[: len(slots)], rows[: len(slots)]
        evicted = self._contents[slots]
        evicted = evicted[evicted != UNCACHED]
        self._index.remove(evicted)
        copy_rows(tensors, rows, self.tensors, slots)
        self._contents[slots] = contents
        displaced = self._index.put(contents, slots)
        self._contents[displaced] = UNCACHED
        self._clock.asked[displaced] = False
        self._kept += len(contents) - len(evicted) - len(displaced)
        self._evictions.inc(len(evicted) + len(displaced))
        self._bytes.set(self._kept * self.tensors.shape[1] * self.tensors.itemsize)


@dataclass(slots=True)
class _Cached:
    """Rows that are in slots of the cache, but for those absent, which were computed."""

    cache: ItemCache
    slots: Places
    absent: npt.NDArray[np.intp]
    computed: Tensor

    def __len__(self) -> int:
        return len(self.slots)

    def __getitem__(self, rows: slice, /) -> Tensor:
        start, stop, _ = rows.indices(len(self))
        tensors = self.cache.copy(self.slots[start:stop])
        first, last = np.searchsorted(self.absent, (start, stop))
        tensors[self.absent[first:last] - start] = self.computed[first:last]
        return tensors
