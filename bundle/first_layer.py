"""The first layer of a joint stage, for those whose manifest names its parts.

A graph reads and writes its many numbers four times: to repeat the user's, to add, to cut and to
rectify. Here an item's are read where they are kept, and written once, where the first products
read them (docs/decisions/0044). The loop is in C, `first_layer.c`, without the interpreter's lock.
"""

from __future__ import annotations

import ctypes
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bundle.manifest import Part

Tensor = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]

_LIBRARY = Path(__file__).with_name(f"_first_layer{sysconfig.get_config_var('EXT_SUFFIX')}")


def _compiled() -> Any:
    try:
        function = ctypes.CDLL(str(_LIBRARY)).first_layer
    except OSError as error:
        raise ImportError(f"{_LIBRARY.name} is compiled by `pip install`: {error}") from error
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    side = (pointer, number, pointer)
    function.argtypes = (*side, *side, number, pointer, pointer, number, pointer)
    function.restype = number
    return function


_first_layer = _compiled()


class FirstLayer:
    """Computes the parts that a manifest names; from any thread.

    Attributes:
        width: of all parts together, P.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._starts = np.cumsum([0, *(part.width for part in parts)], dtype=np.int64)
        self._relu = np.array([part.relu for part in parts], np.uint8)
        self.width = int(self._starts[-1])

    def compute(
        self, users: Tensor, user_row: Places, items: Tensor, item_row: Places, out: Tensor
    ) -> dict[str, Tensor]:
        """The tensors of the parts for N candidates, by name: float32 [N, width] each, in `out`.

        Args:
            users: float32 [U, P]. user_row: int64 [N], each in [0, U).
            items: float32 [I, P]. item_row: int64 [N], each in [0, I).
            out: float32 of at least N * P numbers, written over.

        Raises:
            ValueError: an array is not of that type or shape, or does not lie in one piece.
            IndexError: a row is out of range.
        """
        rows = len(user_row)
        if len(item_row) != rows or out.size < rows * self.width:
            raise ValueError(f"{len(item_row)} item rows, {out.size} numbers for {rows} user rows")
        wrong = _first_layer(
            *(_address(users, np.float32, self.width), len(users), _address(user_row, np.int64)),
            *(_address(items, np.float32, self.width), len(items), _address(item_row, np.int64)),
            *(rows, _address(self._starts, np.int64), _address(self._relu, np.uint8)),
            *(len(self._relu), _address(out, np.float32)),
        )
        if wrong >= 0:
            raise IndexError(
                f"row {wrong}: no user {user_row[wrong]} of {len(users)}, or no item "
                f"{item_row[wrong]} of {len(items)}"
            )
        flat, start, found = out.reshape(-1), 0, {}
        for part in self._parts:
            end = start + rows * part.width
            found[part.tensor] = flat[start:end].reshape(rows, part.width)
            start = end
        return found


def _address(array: npt.NDArray[Any], dtype: type[np.generic], width: int | None = None) -> int:
    if array.dtype != dtype or not array.flags.c_contiguous:
        raise ValueError(f"{array.dtype} in pieces or of another type; {dtype.__name__} is due")
    if width is not None and array.shape[1:] != (width,):
        raise ValueError(f"tensors are {array.shape}, must be {width} wide")
    return int(array.ctypes.data)
