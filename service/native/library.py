"""The library of all loops, and how arrays are handed to it."""

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

_LIBRARY = Path(__file__).with_name(f"_loops{sysconfig.get_config_var('EXT_SUFFIX')}")


def function(name: str, arguments: str, lets_go: bool) -> Any:
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
    found = getattr(library, name)
    found.argtypes, found.restype = [kinds[each] for each in arguments], ctypes.c_int64
    return found


def address(array: npt.NDArray[Any], dtype: type[np.generic], width: int | None = None) -> int:
    """Where an array lies.

    Raises:
        ValueError: it is not of that type, not that wide, or does not lie in one piece.
    """
    if array.dtype != dtype or not array.flags.c_contiguous:
        raise ValueError(f"{array.dtype} in pieces or of another type; {dtype.__name__} is due")
    if width is not None and array.shape[1:] != (width,):
        raise ValueError(f"tensors are {array.shape}, must be {width} wide")
    return int(array.ctypes.data)


def kind(tensors: Kept) -> type[np.floating[Any]]:
    """The type of their numbers, as `address` takes it; float32 for what is neither."""
    return np.float16 if tensors.dtype == np.float16 else np.float32


VECTOR_BITS: int = function("vector_bits", "", lets_go=False)()
"""How many bits of numbers this processor adds with one instruction: 128, 256 or 512."""
