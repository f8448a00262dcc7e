"""The in-process tier: packed rows of one entity in one array, found by id, gathered by slot.

Slot 0 is the empty row of an id that was not read; ids the store does not know are kept too, so
that asking for them again costs no read. Rows are evicted by clock (`clock.py`).

A row that has expired, or that may have changed, is believed no longer; it stays where it is until
another needs its place, for the hour when the store cannot be read (`find_stale`).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from bundle.rows import Decoded, RowLayout, Rows
from service.clock import Clock, Slots
from service.hash_index import ABSENT, NO_KEY, HashIndex, spread
from service.values import Keys

EMPTY_SLOT = 0
NOT_A_NUMBER = np.iinfo(np.int64).min
_BOOKKEEPING_BYTES = 270  # a slot's share of the dictionary, its key and the arrays beside rows
_TTL_JITTER = 0.1
_LARGEST = np.iinfo(np.int64).max
_MOST_DIGITS = 20


class Outcome(IntEnum):
    """What became of an id; all but FOUND have the empty row."""

    FOUND = 0
    NOT_FOUND = 1
    FOREIGN_LAYOUT = 2
    CORRUPT = 3
    UNREAD = 4


class CachedRows:
    """Copies of rows, with what is derived from them.

    Attributes:
        records: [n], the fields below and `expires` as one structured array.
        rows: [n]. content: uint64 [n], see `RowLayout.content_hash`.
        outcome: uint8 [n], an `Outcome`. found: bool [n], whether it is FOUND.
        complete: bool [n], no value of the row is absent.
    """

    __slots__ = ("complete", "content", "found", "outcome", "records", "rows")

    def __init__(self, records: npt.NDArray[np.void]) -> None:
        self.records = records
        self.rows: Rows = records["row"]
        self.content: npt.NDArray[np.uint64] = records["content"]
        self.outcome: npt.NDArray[np.uint8] = records["outcome"]
        self.found: npt.NDArray[np.bool_] = records["found"]
        self.complete: npt.NDArray[np.bool_] = records["complete"]


def record_dtype(layout: RowLayout) -> np.dtype[np.void]:
    """The dtype of `CachedRows.records`."""
    derived = [
        ("content", "<u8"),
        ("expires", "<f8"),
        ("outcome", "u1"),
        ("found", "?"),
        ("complete", "?"),
    ]
    return np.dtype([("row", layout.dtype), *derived], align=True)


def describe(layout: RowLayout, decoded: Decoded) -> CachedRows:
    """Decoded rows with what is derived from them."""
    described = CachedRows(np.zeros(len(decoded.rows), record_dtype(layout)))
    described.rows[:] = decoded.rows
    described.content[:] = decoded.content
    described.found[:] = decoded.found
    if not decoded.found.all():
        described.outcome[~decoded.found] = Outcome.NOT_FOUND
        described.outcome[decoded.foreign] = Outcome.FOREIGN_LAYOUT
        described.outcome[decoded.corrupt] = Outcome.CORRUPT
    described.complete[:] = layout.complete(decoded.rows)
    return described


class RowCache:
    """Rows of one layout.

    Ids are texts, but most are whole numbers; those are found by number, a column at once.

    Args:
        capacity_bytes: budget for rows and bookkeeping together.
    """

    def __init__(self, layout: RowLayout, capacity_bytes: int) -> None:
        slots = max(2, capacity_bytes // self.bytes_for(layout, 1)) + 1
        self.layout = layout
        self._records = np.zeros(slots, record_dtype(layout))  # one gather takes all of a row
        self._expires = self._records["expires"]
        self._read_at = np.full(slots, -np.inf)
        self._clock = Clock(slots, first=EMPTY_SLOT + 1)
        self._ids: npt.NDArray[np.object_] = np.full(slots, None)
        self._slot_of: dict[str, int] = {}
        self._numbers = np.full(slots, NO_KEY)
        self._slot_of_number = HashIndex(slots)
        self._random = np.random.default_rng(0)
        nothing = describe(layout, layout.decode([None]))
        nothing.outcome[:] = Outcome.UNREAD
        nothing.records["expires"] = -np.inf
        self._records[EMPTY_SLOT] = nothing.records[0]

    @staticmethod
    def bytes_for(layout: RowLayout, rows: int) -> int:
        """The budget in which `rows` rows have room."""
        return rows * (record_dtype(layout).itemsize + _BOOKKEEPING_BYTES)

    def look_up(self, ids: Keys | None, now: float) -> tuple[CachedRows, list[int]]:
        """Copies of the rows of `ids`, and the positions of those that are not believed to be here.

        Args:
            ids: None is one row that is nobody's.

        Returns:
            One row an id, the empty one at these positions.
        """
        if ids is None:
            return self.take(np.array([EMPTY_SLOT])), []
        slots = self._slots_of(ids)
        self._clock.asked[slots] = True  # ABSENT marks the last slot, which does no harm
        records = self._records.take(slots, mode="clip")  # ABSENT takes the empty row
        absent = records["expires"] < now
        if not absent.any():
            return CachedRows(records), []
        records[absent] = self._records[EMPTY_SLOT]
        return CachedRows(records), np.flatnonzero(absent).tolist()

    def _slots_of(self, ids: Keys) -> Slots:
        if isinstance(ids, np.ndarray):
            return self._slot_of_number.find(spread(ids))
        return np.array([self._slot_of.get(each, ABSENT) for each in ids], np.int64)

    def find_stale(self, ids: Sequence[str], read_since: float) -> Slots:
        """The slot of each id whose row, believed or not, was read since; ABSENT of others."""
        slots = np.array([self._slot_of.get(each, ABSENT) for each in ids], np.int64)
        usable = (self._read_at[slots] >= read_since) & self._records["found"][slots]
        slots[~usable] = ABSENT
        return slots

    def put(
        self,
        ids: Sequence[str],
        rows: CachedRows,
        now: float,
        ttl_s: float,
        numbers: npt.NDArray[np.int64] | None = None,
    ) -> None:
        """Keep rows for `ttl_s` seconds or a little less: what came together must not go together.

        When there are more rows than slots, the last ones stay.

        Args:
            ids: all different. numbers: the same as whole numbers, where all of them are.
        """
        if (surplus := len(ids) - (len(self._ids) - 1)) > 0:
            ids, rows = ids[surplus:], CachedRows(rows.records[surplus:])
            numbers = None if numbers is None else numbers[surplus:]
        if numbers is None:
            numbers = np.array([_number(each) for each in ids], np.int64)
        slots = self._slots_for(ids)
        self._index_numbers(slots, spread(numbers))
        self._records[slots] = rows.records
        self._read_at[slots] = now
        self._expires[slots] = now + ttl_s * (1.0 - _TTL_JITTER * self._random.random(len(slots)))

    def take(self, slots: Slots) -> CachedRows:
        """Copies of the rows in `slots`."""
        return CachedRows(self._records.take(slots))  # seven times as fast as indexing

    def hot(self) -> Slots:
        """Slots of rows that were asked for since the hand passed them last, and are believed."""
        known = self._records["found"] & (self._expires > -np.inf)
        return np.flatnonzero(self._clock.asked & known)

    def expire(self, entity_id: str) -> None:
        """Believe the row of an id no longer; it has changed in the store."""
        slot = self._slot_of.get(entity_id)
        if slot is not None:
            self._expires[slot] = -np.inf
            self._clock.asked[slot] = False

    def expire_all(self) -> None:
        """Believe nothing any longer."""
        self._expires[list(self._slot_of.values())] = -np.inf  # and leaves unused memory alone
        self._clock.asked[:] = False

    def __len__(self) -> int:
        return len(self._slot_of)

    def _slots_for(self, ids: Sequence[str]) -> Slots:
        """The slots of ids; those that have none get one that was not asked for lately."""
        slots = np.array([self._slot_of.get(each, ABSENT) for each in ids], np.int64)
        new = slots == ABSENT
        if new.any():
            taken = self._clock.take(int(new.sum()), kept=slots[~new])
            for evicted in self._ids[taken].tolist():
                if evicted is not None:
                    del self._slot_of[evicted]
            slots[new] = taken
            added = [ids[row] for row in np.flatnonzero(new).tolist()]
            self._ids[taken] = added
            self._slot_of.update(zip(added, taken.tolist(), strict=True))
        return slots

    def _index_numbers(self, slots: Slots, keys: npt.NDArray[np.uint64]) -> None:
        """Make the index of numbers follow what is now in `slots`."""
        self._slot_of_number.remove(self._numbers[slots])
        self._numbers[slots] = keys
        whole = keys != NO_KEY
        self._slot_of_number.put(keys[whole], slots[whole])


def _number(entity_id: str | None) -> int:
    """An id that is a whole number, as `str` writes it; NOT_A_NUMBER, whose key is NO_KEY, else."""
    if entity_id is None or len(entity_id) > _MOST_DIGITS:
        return NOT_A_NUMBER
    try:
        number = int(entity_id)
    except ValueError:
        return NOT_A_NUMBER
    same = str(number) == entity_id and NOT_A_NUMBER < number <= _LARGEST
    return number if same else NOT_A_NUMBER
