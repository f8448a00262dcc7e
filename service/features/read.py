"""A read of one node under way, its parts, and what a request has of them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import numpy as np

from bundle.rows import Decoded
from service.clock import Slots
from service.errors import FeatureStoreUnavailable
from service.features.cache import CachedRows, RowCache
from service.features.store import Node
from service.features.wanted import Wanted
from service.values import Keys

_NONE: Slots = np.zeros(0, np.int64)


class Part:
    """The rows of one entity in a read.

    Attributes:
        slots: where the tier has room for them. rows: once they have landed.
        shared: whether more than one request waits for them.
    """

    __slots__ = ("cache", "decoded", "ids", "prefix", "rows", "shared", "slots")

    def __init__(self, wanted: Wanted, ids: Keys) -> None:
        self.cache: RowCache = wanted.cache
        self.prefix = wanted.prefix
        self.ids = ids
        self.slots = _NONE
        self.shared = False
        self.decoded: Decoded | None = None
        self.rows: CachedRows | None = None

    def find(self, slots: Slots) -> Slots:
        """Which of the rows have these slots."""
        order = np.argsort(self.slots)
        return order[np.searchsorted(self.slots, slots, sorter=order)]

    def take(self, rows: Slots | None) -> CachedRows:
        """Some of the rows, for one request to do with as it likes; None: all, in order."""
        assert self.rows is not None
        if rows is None and not self.shared:
            return self.rows
        return self.rows.take(np.arange(len(self.slots)) if rows is None else rows)


class Read:
    """One read of one node under way.

    Attributes:
        number: counted up. parts: by prefix.
        task: ends when the read has, whether it failed or not.
        failure: why there are no rows.
    """

    __slots__ = ("failure", "generation", "late", "node", "number", "parts", "started", "task")

    def __init__(self, number: int, node: Node, generation: int) -> None:
        self.number = number
        self.node = node
        self.generation = generation
        self.parts: dict[str, Part] = {}
        self.started = time.monotonic()
        self.late = False
        self.failure: FeatureStoreUnavailable | None = None
        self.task: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class Share:
    """What a request has of a read: `rows` of `part` belong in the `places` of `wanted`."""

    read: Read
    part: Part
    rows: Slots | None
    wanted: Wanted
    places: Slots


def repeats(ids: Keys) -> Slots:
    """Where ids stand that have stood before."""
    if isinstance(ids, np.ndarray):
        ordered = np.sort(ids)
        if (ordered[1:] != ordered[:-1]).all():
            return _NONE
    elif len(set(ids)) == len(ids):
        return _NONE
    first = {each: place for place, each in reversed(list(enumerate(ids)))}
    return np.delete(np.arange(len(ids)), list(first.values()))


def share_of_repeats(read: Read, part: Part, wanted: Wanted, places: Slots) -> Share:
    """The share of a part that repeats what is in it."""
    row_of = {each: row for row, each in enumerate(part.ids)}
    asked = zip(places.tolist(), wanted.ids(places), strict=True)
    found = [(place, row_of[each]) for place, each in asked if each in row_of]
    part.shared = True
    at, rows = np.array(found, np.int64).reshape(-1, 2).T
    return Share(read, part, rows, wanted, at)
