"""Memory for item tensors, handed on by a version that has closed to the one that comes next.

Memory that is new to a process has to be found, and cleared: where the machine is virtual and lends
out what was freed, that took 20 times as long as writing 10,000 tensors into memory that it had
(docs/decisions/0042). Versions follow each other closely when it matters: a rollback, say.
"""

from __future__ import annotations

import weakref
from contextlib import suppress
from typing import Any

import numpy as np

from service.native.library import Kept
from service.values import KeptAs


class TensorMemory:
    """Arrays of tensors, and the last one that was given back; from any thread.

    Args:
        kept_as: the type of their numbers.
    """

    def __init__(self, kept_as: KeptAs = "float32") -> None:
        self.dtype: np.dtype[Any] = np.dtype(kept_as)
        self._spare: list[Kept] = []

    def take(self, owner: object, slots: int, width: int) -> Kept:
        """An array [slots, width] of any content; it comes back as its owner goes."""
        tensors: Kept | None = None
        with suppress(IndexError):
            tensors = self._spare.pop()
        if tensors is None or tensors.shape != (slots, width):
            tensors = np.empty((slots, width), self.dtype)  # memory comes as slots are filled
        weakref.finalize(owner, self._give_back, tensors).atexit = False
        return tensors

    def _give_back(self, tensors: Kept) -> None:
        self._spare[:] = [tensors]

    def forget(self) -> None:
        """Let go of an array that nobody has wanted."""
        self._spare.clear()
