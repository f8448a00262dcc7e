"""Eviction by clock, for the slots of a cache.

A slot stays while it is asked for between two passes of the hand. What is new starts unasked, so a
scan of things asked for once drives out other such things, not those in use.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Slots = npt.NDArray[np.int64]

_NONE: Slots = np.zeros(0, np.int64)


class Clock:
    """The hand, and what it finds asked for.

    Args:
        slots: how many there are. first: the first one that may be taken.

    Attributes:
        asked: bool [slots], set when a slot is used; cleared when the hand passes.
    """

    def __init__(self, slots: int, first: int = 0) -> None:
        self.asked = np.zeros(slots, bool)
        self._first = first
        self._hand = first

    def take(self, count: int, kept: Slots = _NONE) -> Slots:
        """The next `count` slots not asked for since the hand came by, nor `kept`; unasked now.

        Args:
            count: no more than there are slots to take.
        """
        free = [_NONE]
        while count:
            last = min(self._hand + 2 * count, len(self.asked))
            ahead = np.arange(self._hand, last)
            free_now = ~self.asked[ahead]
            if len(kept):
                free_now &= ~np.isin(ahead, kept)
            found = ahead[free_now][:count]
            if len(found) == count:
                last = int(found[-1]) + 1
            self.asked[self._hand : last] = False
            self.asked[found] = True  # the hand may come by again before they are all found
            self._hand = last if last < len(self.asked) else self._first
            free.append(found)
            count -= len(found)
        slots = np.concatenate(free)
        self.asked[slots] = False
        return slots

    def give_back(self, slots: Slots) -> None:
        """Let slots that were taken for nothing be the next to be taken."""
        if len(slots):
            self._hand = int(slots[0])
