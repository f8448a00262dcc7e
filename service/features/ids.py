"""Which slot an id has. Most ids are whole numbers; those are found by number, a column at once.

An id is kept in the form in which it came first, text or number, and found by either: 196 and "196"
are one id, "0196" is another.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from service.clock import Slots
from service.hash_index import ABSENT, NO_KEY, HashIndex, gathered, spread
from service.values import Keys

_LARGEST = np.iinfo(np.int64).max
_NOT_A_NUMBER = np.iinfo(np.int64).min  # whose key is NO_KEY
_MOST_DIGITS = 20


class IdIndex:
    """A map from ids to slots.

    Args:
        slots: how many there are.
    """

    def __init__(self, slots: int) -> None:
        self._slot_of_text: dict[str, int] = {}
        self._texts: npt.NDArray[np.object_] = np.full(slots, None)
        self._slot_of_number = HashIndex(slots)
        self._numbers = np.zeros(slots, np.uint64)  # memory comes as slots are filled
        self._any_number = False

    def find(self, ids: Keys) -> Slots:
        """The slot of each id, int64 [N]; ABSENT where there is none."""
        if isinstance(ids, np.ndarray):
            slots = self._slot_of_number.find(spread(ids))
            if self._slot_of_text and (slots == ABSENT).any():
                rest = (slots == ABSENT).nonzero()[0]
                slots[rest] = self._find_texts(list(map(str, ids[rest].tolist())))
            return slots
        slots = self._find_texts(ids)
        if self._any_number and (slots == ABSENT).any():
            rest = (slots == ABSENT).nonzero()[0]
            numbers = np.array([_number(ids[each]) for each in rest.tolist()], np.int64)
            slots[rest] = self._slot_of_number.find(spread(numbers))
        return slots

    def _find_texts(self, texts: Sequence[str]) -> Slots:
        return np.array([self._slot_of_text.get(each, ABSENT) for each in texts], np.int64)

    def put(self, ids: Keys, slots: Slots) -> Slots:
        """Give distinct ids that have no slot one each that nobody has.

        Returns:
            Slots that others have lost for them, which is rare.
        """
        if isinstance(ids, np.ndarray):
            keys = spread(ids)
            if (keys != NO_KEY).all():
                self._any_number = True
                self._numbers[slots] = keys
                lost = self._slot_of_number.put(keys, slots)
                self._numbers[lost] = NO_KEY
                return lost
            ids = list(map(str, ids.tolist()))
        self._slot_of_text.update(zip(ids, slots.tolist(), strict=True))
        self._texts[slots] = ids
        return slots[:0]

    def remove(self, slots: Slots) -> None:
        """Forget the ids that have `slots`."""
        if self._any_number:
            self._slot_of_number.remove(self._numbers.take(slots))
            self._numbers[slots] = NO_KEY
        if self._slot_of_text:
            for text in self._texts.take(slots).tolist():
                if text is not None:
                    del self._slot_of_text[text]
            self._texts[slots] = None

    def ids_of(self, slots: Slots) -> list[str]:
        """The ids that have `slots`, as texts."""
        numbers = gathered(self._numbers[slots]).tolist()
        texts = self._texts[slots].tolist()
        return [str(n) if text is None else text for n, text in zip(numbers, texts, strict=True)]

    def used(self) -> Slots:
        """All slots that an id has."""
        of_texts = np.fromiter(self._slot_of_text.values(), np.int64, len(self._slot_of_text))
        return np.concatenate([of_texts, np.flatnonzero(self._numbers != NO_KEY)])


def _number(entity_id: str) -> int:
    """An id that is a whole number, as `str` writes it; _NOT_A_NUMBER else."""
    if len(entity_id) > _MOST_DIGITS:
        return _NOT_A_NUMBER
    try:
        number = int(entity_id)
    except ValueError:
        return _NOT_A_NUMBER
    same = str(number) == entity_id and _NOT_A_NUMBER < number <= _LARGEST
    return number if same else _NOT_A_NUMBER
