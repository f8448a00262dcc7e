"""The first layer of a joint stage, for those whose manifest names its parts.

A graph reads and writes its many numbers four times: to repeat the user's, to add, to cut and to
rectify. Here an item's are read where they are kept, and written once, where the first products
read them (docs/decisions/0044).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bundle.manifest import Part
from service.native import Kept, Places, Tensor, first_layer


class FirstLayer:
    """Computes the parts that a manifest names; from any thread.

    Attributes:
        width: of all parts together, P.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._starts = np.cumsum([0, *(part.width for part in parts)], dtype=np.int64)
        self._relu = np.array([part.relu for part in parts])
        self.width = int(self._starts[-1])

    def compute(
        self, users: Tensor, user_row: Places, items: Kept, item_row: Places, out: Tensor
    ) -> dict[str, Tensor]:
        """The tensors of the parts for N candidates, by name: float32 [N, width] each, in `out`.

        Args:
            users: float32 [U, P]. user_row: int64 [N], each in [0, U).
            items: float32 or float16 [I, P]. item_row: int64 [N], each in [0, I).
            out: float32 of at least N * P numbers, written over.

        Raises:
            ValueError: an array is not of that type or shape, or does not lie in one piece.
            IndexError: a row is out of range.
        """
        first_layer(users, user_row, items, item_row, self._starts, self._relu, out)
        flat, rows, start, found = out.reshape(-1), len(user_row), 0, {}
        for part in self._parts:
            end = start + rows * part.width
            found[part.tensor] = flat[start:end].reshape(rows, part.width)
            start = end
        return found
