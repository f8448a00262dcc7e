"""Copying item tensors, and finding keys, by `memory.c`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from service.native.library import Kept, Places, address, function, kind

_copy_rows = function("copy_rows", "pnppnpnn", lets_go=True)
_find = function("find", "pnppnp", lets_go=False)  # to get it back would take longer


def copy_rows(source: Kept, source_row: Places, target: Kept, target_row: Places) -> None:
    """target[target_row] = source[source_row], without another copy of them on the way.

    Args:
        source, target: float32 or float16, both the same, [., P]; one does not overlap the other.
        source_row, target_row: int64 [N].

    Raises:
        ValueError: an array is not of that type or shape, or does not lie in one piece.
        IndexError: there is no such row.
    """
    rows, width, dtype = len(source_row), source.shape[-1], kind(target)
    if len(target_row) != rows:
        raise ValueError(f"{rows} rows for {len(target_row)} places")
    outside = _copy_rows(
        *(address(source, dtype, width), len(source), address(source_row, np.int64)),
        *(address(target, dtype, width), len(target), address(target_row, np.int64)),
        *(rows, width * target.itemsize),
    )
    if outside:
        raise IndexError(f"rows of {len(source)} and of {len(target)}, one not among them")


def find(
    keys: npt.NDArray[np.uint64], buckets: npt.NDArray[np.uint64], slots: Places, shift: int
) -> Places:
    """What lies with each key in a `HashIndex`, int64 [N]; ABSENT where it is not.

    Args:
        keys: uint64 [N]. buckets: uint64 [1 << (64 - shift), 8]. slots: int64, one a place.

    Raises:
        ValueError: an array is not of that type or shape, or does not lie in one piece.
    """
    if buckets.shape != (1 << (64 - shift), 8) or slots.size != buckets.size:
        raise ValueError(f"buckets {buckets.shape}, slots {slots.shape} for a shift of {shift}")
    found = np.empty(len(keys), np.int64)
    _find(
        *(address(keys, np.uint64), len(keys), address(buckets, np.uint64)),
        *(address(slots, np.int64), shift, address(found, np.int64)),
    )
    return found
