"""The in-process tier: packed rows of one entity in one array, found by id, gathered by slot.

Slot 0 is the empty row of an id that was not read; ids the store does not know are kept too, so
that asking for them again costs no read. Rows are evicted by clock (`clock.py`).

An id gets its slot when a read of it starts, and the slot says which read that is: so others find
out that the row is on its way, and a row that was read is kept only where it is still waited for.

A row that has expired, or that may have changed, is believed no longer; it stays where it is until
another needs its place, for the hour when the store cannot be read (`find_stale`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from bundle.rows import Decoded, RowLayout, Rows
from service.clock import Clock, Slots
from service.features.ids import IdIndex
from service.hash_index import ABSENT
from service.values import Keys

EMPTY_SLOT = 0
NO_READ = 0
_BOOKKEEPING_BYTES = 240  # a slot's share of the index, its id (a text) and the arrays beside rows
_TTL_JITTER = 0.1


class Outcome(IntEnum):
    """What became of an id; all but FOUND have the empty row."""

    FOUND = 0
    NOT_FOUND = 1
    FOREIGN_LAYOUT = 2
    CORRUPT = 3
    UNREAD = 4


@dataclass(slots=True)
class CachedRows:
    """Rows, with what is derived from them.

    Attributes:
        rows: [n]. content: uint64 [n], see `RowLayout.content_hash`.
        outcome: uint8 [n], an `Outcome`. found: bool [n], whether it is FOUND.
        complete: bool [n], no value of the row is absent.
    """

    rows: Rows
    content: npt.NDArray[np.uint64]
    outcome: npt.NDArray[np.uint8]
    found: npt.NDArray[np.bool_]
    complete: npt.NDArray[np.bool_]

    def take(self, places: Any) -> CachedRows:
        """Copies of the rows at `places`, an index array."""
        return CachedRows(
            _plain(self.rows).take(places).view(self.rows.dtype),
            self.content[places],
            self.outcome[places],
            self.found[places],
            self.complete[places],
        )

    def put(self, places: Any, others: CachedRows) -> None:
        """Replace the rows at `places`, an index array."""
        _plain(self.rows)[places] = _plain(others.rows)
        self.content[places] = others.content
        self.outcome[places] = others.outcome
        self.found[places] = others.found
        self.complete[places] = others.complete


def _plain(rows: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """The same memory, of which numpy moves a row at a time and not a field."""
    return rows.view((np.void, rows.dtype.itemsize))


def describe(layout: RowLayout, decoded: Decoded) -> CachedRows:
    """Decoded rows with what is derived from them."""
    outcome = np.full(len(decoded.rows), Outcome.FOUND, np.uint8)
    if not decoded.found.all():
        outcome[~decoded.found] = Outcome.NOT_FOUND
        outcome[decoded.foreign] = Outcome.FOREIGN_LAYOUT
        outcome[decoded.corrupt] = Outcome.CORRUPT
    complete = layout.complete(decoded.rows)
    return CachedRows(decoded.rows, decoded.content, outcome, decoded.found, complete)


class RowCache:
    """Rows of one layout.

    Args:
        capacity_bytes: budget for rows and bookkeeping together.
    """

    def __init__(self, layout: RowLayout, capacity_bytes: int) -> None:
        slots = max(2, capacity_bytes // self.bytes_for(layout, 1)) + 1
        self.layout = layout
        self._records = np.zeros(slots, _record_dtype(layout))  # one gather takes all of a row
        self._plain = _plain(self._records)
        self._kept = _rows_of(self._records)
        self._expires = self._records["expires"]
        self._read_at = np.full(slots, -np.inf)
        self._reads = np.full(slots, NO_READ, np.int64)
        self._ids = IdIndex(slots)
        self._clock = Clock(slots, first=EMPTY_SLOT + 1)
        self._random = np.random.default_rng(0)
        nothing = describe(layout, layout.decode([None]))
        nothing.outcome[:] = Outcome.UNREAD
        self._kept.put([EMPTY_SLOT], nothing)
        self._expires[EMPTY_SLOT] = -np.inf

    @staticmethod
    def bytes_for(layout: RowLayout, rows: int) -> int:
        """The budget in which `rows` rows have room."""
        return rows * (_record_dtype(layout).itemsize + _BOOKKEEPING_BYTES)

    def look_up(self, ids: Keys, now: float) -> tuple[CachedRows | None, Slots, Slots]:
        """Copies of the rows of `ids`, and which of them are not believed to be here.

        Returns:
            One row an id, the empty one where it is not here, or None if none is here; the places
            of these [m] and the slots [m] that they have none the less, or ABSENT.
        """
        slots = self._ids.find(ids)
        self._clock.asked[slots] = True  # ABSENT marks the last slot, which does no harm
        records = self._gather(slots)
        absent = records["expires"] < now
        if not absent.any():
            return _rows_of(records), _NONE, _NONE
        if absent.all():
            return None, np.arange(len(slots)), slots
        _plain(records)[absent] = self._plain[EMPTY_SLOT]
        places = absent.nonzero()[0]
        return _rows_of(records), places, slots[places]

    def nothing(self, rows: int) -> CachedRows:
        """Rows that were not read."""
        return self.take(np.full(rows, EMPTY_SLOT))

    def find_stale(self, ids: Keys, read_since: float) -> Slots:
        """The slot of each id whose row, believed or not, was read since; ABSENT of others."""
        slots = self._ids.find(ids)
        usable = (self._read_at[slots] >= read_since) & self._kept.found[slots]
        slots[~usable] = ABSENT
        return slots

    def reads_of(self, slots: Slots) -> Slots:
        """The read that was started last for each slot, negative if its row has changed since."""
        return self._reads.take(slots, mode="clip")

    def reserve(self, ids: Keys, read: int) -> Slots:
        """Give ids their slots, for the rows that a read is going to bring.

        Args:
            ids: all different. read: its number.

        Returns:
            The slot of each id; EMPTY_SLOT for the first ones when there are more than slots.
        """
        slots = self._ids.find(ids)
        if (surplus := len(slots) - (len(self._records) - 1)) > 0:
            slots[:surplus] = EMPTY_SLOT
        new = (slots == ABSENT).nonzero()[0]
        if len(new):
            held = slots[slots > EMPTY_SLOT]
            taken = self._clock.take(len(new), kept=held)
            self._ids.remove(taken)
            ids = ids[new] if isinstance(ids, np.ndarray) else [ids[each] for each in new.tolist()]
            self._expires[self._ids.put(ids, taken)] = -np.inf
            self._expires[taken] = self._read_at[taken] = -np.inf  # what lies there is another's
            slots[new] = taken
        self._reads[slots] = read
        self._reads[EMPTY_SLOT] = NO_READ
        return slots

    def fill(self, slots: Slots, read: int, rows: CachedRows, now: float, ttl_s: float) -> None:
        """Keep what a read brought, where it is still waited for.

        For `ttl_s` seconds or a little less: what came together must not go together.

        Args:
            slots: as `reserve` gave them. now: when the read was started.
        """
        reads = self._reads.take(slots)
        if (reads != read).any():
            waiting = np.abs(reads) == read
            slots, reads, rows = slots[waiting], reads[waiting], rows.take(waiting.nonzero()[0])
        self._kept.put(slots, rows)
        self._read_at[slots] = now
        self._expires[slots] = now + ttl_s * (1.0 - _TTL_JITTER * self._random.random(len(slots)))
        self._expires[slots[reads < 0]] = -np.inf

    def release(self, slots: Slots, read: int) -> None:
        """Forget ids whose first read has failed."""
        new = self._read_at.take(slots) == -np.inf
        slots = slots[new & (np.abs(self._reads.take(slots)) == read)]
        self._ids.remove(slots)
        self._clock.give_back(slots)

    def take(self, slots: Slots) -> CachedRows:
        """Copies of the rows in `slots`."""
        return _rows_of(self._gather(slots))

    def _gather(self, slots: Slots) -> npt.NDArray[np.void]:
        # many times as fast as indexing; ABSENT takes the empty row
        return self._plain.take(slots, mode="clip").view(self._records.dtype)

    def hot(self) -> Slots:
        """Slots of rows that were asked for since the hand passed them last, and are believed."""
        known = self._kept.found & (self._expires > -np.inf)
        return np.flatnonzero(self._clock.asked & known)

    def ids_of(self, slots: Slots) -> list[str]:
        """The ids whose rows are in `slots`."""
        return self._ids.ids_of(slots)

    def ask_for(self, ids: Keys) -> None:
        """Count as asked for, as far as rows are here."""
        self._clock.asked[self._ids.find(ids)] = True

    def expire(self, ids: list[str]) -> None:
        """Believe rows no longer, nor what is being read of them; they have changed."""
        slots = self._ids.find(ids)
        slots = slots[slots != ABSENT]
        self._reads[slots] = -np.abs(self._reads[slots])
        self._expires[slots] = -np.inf
        self._clock.asked[slots] = False

    def expire_all(self) -> None:
        """Believe nothing any longer."""
        self._expires[self._ids.used()] = -np.inf  # and leaves unused memory alone
        self._clock.asked[:] = False


_NONE: Slots = np.zeros(0, np.int64)


def _record_dtype(layout: RowLayout) -> np.dtype[np.void]:
    derived = [
        ("content", "<u8"),
        ("expires", "<f8"),
        ("outcome", "u1"),
        ("found", "?"),
        ("complete", "?"),
    ]
    return np.dtype([("row", layout.dtype), *derived], align=True)


def _rows_of(records: npt.NDArray[np.void]) -> CachedRows:
    names = ("row", "content", "outcome", "found", "complete")
    return CachedRows(*(records[name] for name in names))
