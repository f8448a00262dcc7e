"""Loops over memory in C, `native.c`, which `pip install` compiles. No argument makes them touch
memory that is not theirs.
"""

from __future__ import annotations

import ctypes
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Tensor = npt.NDArray[np.float32]
Kept = npt.NDArray[np.float32] | npt.NDArray[np.float16]
"""Item tensors where they are kept."""
Places = npt.NDArray[np.int64]

_LIBRARY = Path(__file__).with_name(f"_native{sysconfig.get_config_var('EXT_SUFFIX')}")


def _function(name: str, arguments: str, lets_go: bool) -> Any:
    """A function of the library.

    Args:
        arguments: p stands for an address, n for a number.
        lets_go: of the interpreter's lock, while it runs.
    """
    kinds = {"p": ctypes.c_void_p, "n": ctypes.c_int64}
    try:
        library = (ctypes.CDLL if lets_go else ctypes.PyDLL)(str(_LIBRARY))
    except OSError as error:
        raise ImportError(f"{_LIBRARY.name} is compiled by `pip install`: {error}") from error
    function = getattr(library, name)
    function.argtypes, function.restype = [kinds[each] for each in arguments], ctypes.c_int64
    return function


VECTOR_BITS: int = _function("vector_bits", "", lets_go=False)()
"""How many bits of numbers this processor adds with one instruction: 128, 256 or 512."""

_first_layer = _function("first_layer", "pnppnpnnppnpn", lets_go=True)
_copy_rows = _function("copy_rows", "pnppnpnn", lets_go=True)
_find = _function("find", "pnppnp", lets_go=False)  # to get it back would take longer


def first_layer(
    users: Tensor,
    user_row: Places,
    items: Kept,
    item_row: Places,
    starts: Places,
    relu: npt.NDArray[np.bool_],
    out: Tensor,
) -> None:
    """users[user_row] + items[item_row], cut into parts that lie one after the other in `out`.

    Args:
        users: float32 [U, P]. items: float32 or float16 [I, P]. user_row, item_row: int64 [N].
        starts: int64 [K + 1], the first column of each part, and P.
        relu: bool [K], parts that become max(x, 0); NaN stays.
        out: float32 of at least N * P numbers: part k at N * starts[k], [N, its columns].

    Raises:
        ValueError: an array is not of that type or shape, or does not lie in one piece.
        IndexError: there is no such row.
    """
    rows, parts, width = len(user_row), len(relu), int(starts[-1])
    if len(item_row) != rows or len(starts) != parts + 1 or out.size < rows * width:
        raise ValueError(f"{len(item_row)} item rows, {out.size} numbers for {rows} user rows")
    kind = _kind(items)
    outside = _first_layer(
        *(_address(users, np.float32, width), len(users), _address(user_row, np.int64)),
        *(_address(items, kind, width), len(items), _address(item_row, np.int64)),
        *(kind is np.float16, rows, _address(starts, np.int64), _address(relu, np.bool_), parts),
        *(_address(out, np.float32), VECTOR_BITS),
    )
    if outside:
        raise IndexError(f"rows of {len(users)} users and {len(items)} items, one not among them")


def copy_rows(source: Kept, source_row: Places, target: Kept, target_row: Places) -> None:
    """target[target_row] = source[source_row], without another copy of them on the way.

    Args:
        source, target: float32 or float16, both the same, [., P]; one does not overlap the other.
        source_row, target_row: int64 [N].

    Raises:
        ValueError: an array is not of that type or shape, or does not lie in one piece.
        IndexError: there is no such row.
    """
    rows, width, kind = len(source_row), source.shape[-1], _kind(target)
    if len(target_row) != rows:
        raise ValueError(f"{rows} rows for {len(target_row)} places")
    outside = _copy_rows(
        *(_address(source, kind, width), len(source), _address(source_row, np.int64)),
        *(_address(target, kind, width), len(target), _address(target_row, np.int64)),
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
        *(_address(keys, np.uint64), len(keys), _address(buckets, np.uint64)),
        *(_address(slots, np.int64), shift, _address(found, np.int64)),
    )
    return found


def _kind(tensors: Kept) -> type[np.floating[Any]]:
    return np.float16 if tensors.dtype == np.float16 else np.float32


def _address(array: npt.NDArray[Any], dtype: type[np.generic], width: int | None = None) -> int:
    if array.dtype != dtype or not array.flags.c_contiguous:
        raise ValueError(f"{array.dtype} in pieces or of another type; {dtype.__name__} is due")
    if width is not None and array.shape[1:] != (width,):
        raise ValueError(f"tensors are {array.shape}, must be {width} wide")
    return int(array.ctypes.data)
