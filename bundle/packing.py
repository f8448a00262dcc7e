"""Packing: raw values, as people and tables have them -> the typed columns of a feature row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from bundle.errors import ValueRejected
from bundle.schema import (
    Bucketised,
    Categorical,
    DenseVector,
    Feature,
    IdList,
    Number,
    is_float32,
)

NO_VALUE = 1
"""Among hashes: there is no value."""

PADDING = 0
"""Among hashes: past the end of an id list."""

Columns = npt.NDArray[Any]


def hash_value(value: object) -> int:
    """The stable 64-bit hash of a categorical value; 196 and "196" are the same value.

    Raises:
        TypeError: the value is neither a string nor an integer nor a boolean.
    """
    if isinstance(value, str):
        text = value
    elif isinstance(value, bool | np.bool_):
        text = "true" if value else "false"
    elif isinstance(value, int | np.integer):
        text = str(int(value))
    else:
        raise TypeError(f"expected a string or an integer, got {type(value).__name__}")
    hashed = xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"))
    return hashed if hashed > NO_VALUE else hashed + 2


def _pack_categorical(name: str, values: Sequence[Any], packed: Columns) -> None:
    known: dict[object, int] = {None: NO_VALUE}
    for row, value in enumerate(values):
        packed[row, 0] = _hashed(known, name, row, value)


def _pack_id_list(name: str, values: Sequence[Any], packed: Columns) -> None:
    known: dict[object, int] = {}
    for row, value in enumerate(values):
        if value is None:
            continue
        if not isinstance(value, list | tuple | np.ndarray):
            raise ValueRejected(name, row, f"expected a list of ids, got {type(value).__name__}")
        ids = [_hashed(known, name, row, item) for item in value[: packed.shape[1]]]
        packed[row, 0] = PADDING
        packed[row, : len(ids)] = ids


def _hashed(known: dict[object, int], name: str, row: int, value: object) -> int:
    try:
        # type() in the key: True and 1 are equal as dictionary keys, but not as values
        key = value if type(value) is str or value is None else (type(value), value)
        hashed = known.get(key)
        if hashed is None:
            hashed = known[key] = hash_value(value)
    except TypeError as error:
        raise ValueRejected(
            name, row, f"expected a string or an integer, got {type(value).__name__}"
        ) from error
    return hashed


def _pack_number(name: str, values: Sequence[Any], packed: Columns) -> None:
    for row, value in enumerate(values):
        if value is not None:
            packed[row, 0] = _finite(name, row, value)


def _pack_dense_vector(name: str, values: Sequence[Any], packed: Columns) -> None:
    for row, value in enumerate(values):
        if value is None:
            continue
        if not isinstance(value, list | tuple | np.ndarray) or len(value) != packed.shape[1]:
            raise ValueRejected(name, row, f"expected a list of {packed.shape[1]} numbers")
        packed[row] = [_finite(name, row, number) for number in value]


def _finite(name: str, row: int, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise ValueRejected(name, row, f"expected a number, got {type(value).__name__}")
    try:
        number = float(value)
    except OverflowError:
        number = float("inf")
    if not is_float32(number):
        raise ValueRejected(name, row, f"expected a finite number within float32, got {number}")
    return number


_PACKERS: dict[type, Callable[[str, Sequence[Any], Columns], None]] = {
    Categorical: _pack_categorical,
    IdList: _pack_id_list,
    Number: _pack_number,
    Bucketised: _pack_number,
    DenseVector: _pack_dense_vector,
}


def pack_values(feature: Feature, values: Sequence[Any], packed: Columns) -> None:
    """Write a feature's raw values into its columns of a row block, in place.

    Args:
        values: one raw value a row; None is "no value" and leaves the row as it is.
        packed: uint64 or float32 [rows, width], a view of the block.

    Raises:
        ValueRejected: a value does not fit the feature's kind; names the row.
    """
    _PACKERS[type(feature)](feature.name, values, packed)
