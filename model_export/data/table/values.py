"""Arrow columns -> raw values of a feature's kind, a wrong one named by file, row and column."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bundle.packing import hash_value
from model_export.data.declarations import (
    CategoricalDeclaration,
    DenseVectorDeclaration,
    FeatureDeclaration,
    IdListDeclaration,
)
from model_export.errors import DataInvalid

Where = Callable[[int], str]
"""Row of a column -> `clicks.csv, row 17`."""


def raw_values(
    declaration: FeatureDeclaration,
    name: str,
    column: pa.ChunkedArray,
    separator: str,
    where: Where,
) -> list[Any]:
    """The values of a feature; None is "no value".

    Raises:
        DataInvalid: a value does not fit the feature's kind.
    """
    match declaration:
        case CategoricalDeclaration():
            return _ids(name, column)
        case IdListDeclaration():
            return _lists(name, column, separator)
        case DenseVectorDeclaration():
            return _vectors(declaration.dimension, name, column, separator, where)
        case _:
            found = numbers(name, column, where)
            return [None if value != value else value for value in found.tolist()]


def numbers(name: str, column: pa.ChunkedArray, where: Where) -> npt.NDArray[np.float64]:
    """A column of numbers: float64 [N], NaN where there is no value.

    Raises:
        DataInvalid: a value is no number, NaN or infinite.
    """
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    try:
        wide = pc.cast(column, pa.float64(), safe=False)
    except pa.ArrowException as error:
        raise DataInvalid(_no_number(name, column, where)) from error
    found: npt.NDArray[np.float64] = wide.to_numpy(zero_copy_only=False)
    given = ~column.is_null().to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero(given & ~np.isfinite(found))
    if len(wrong):
        row = int(wrong[0])
        raise DataInvalid(f"{where(row)}: column {name}: {found[row]} is no finite number")
    return found


def keys(name: str, column: pa.ChunkedArray, where: Where) -> npt.NDArray[np.int64]:
    """A column of ids as numbers that are the same for the same id: int64 [N].

    Raises:
        DataInvalid: an id is missing.
    """
    values = _ids(name, column)
    if None in values:
        raise DataInvalid(f"{where(values.index(None))}: column {name}: an id is missing")
    hashes = {value: hash_value(value) for value in set(values)}
    return np.array([hashes[value] for value in values], np.uint64).view(np.int64)


def _no_number(name: str, column: pa.ChunkedArray, where: Where) -> str:
    for row, value in enumerate(column.to_pylist()):
        try:
            float("0" if value is None else value)
        except (TypeError, ValueError):
            return f"{where(row)}: column {name}: {value!r} is no number"
    return f"column {name}: {column.type} is no number"


def _ids(name: str, column: pa.ChunkedArray) -> list[Any]:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not (
        pa.types.is_string(column.type)
        or pa.types.is_large_string(column.type)
        or pa.types.is_integer(column.type)
        or pa.types.is_boolean(column.type)
    ):
        raise DataInvalid(f"column {name}: {column.type} are no ids; strings or integers are")
    values: list[Any] = column.to_pylist()
    return values


def _lists(name: str, column: pa.ChunkedArray, separator: str) -> list[Any]:
    if pa.types.is_string(column.type):
        texts = column.to_pylist()
        return [None if text is None else text.split(separator) for text in texts]
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        raise DataInvalid(f"column {name}: {column.type} is no list")
    values: list[Any] = column.to_pylist()
    return values


def _vectors(
    dimension: int, name: str, column: pa.ChunkedArray, separator: str, where: Where
) -> list[Any]:
    texts = pa.types.is_string(column.type)
    vectors: list[Any] = []
    for row, value in enumerate(column.to_pylist()):
        if value is None:
            vectors.append(None)
            continue
        try:
            vector = [float(one) for one in (value.split(separator) if texts else value)]
        except (TypeError, ValueError, AttributeError) as error:
            raise DataInvalid(f"{where(row)}: column {name}: {value!r} is no vector") from error
        if len(vector) != dimension or not np.isfinite(vector).all():
            raise DataInvalid(
                f"{where(row)}: column {name}: not {dimension} finite numbers: {value!r}"
            )
        vectors.append(vector)
    return vectors
