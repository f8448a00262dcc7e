"""Arrow columns -> raw values of a feature's kind, a wrong one named by file, row and column."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
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

_EPOCH, _MICROSECOND = datetime.fromtimestamp(0, UTC), timedelta(microseconds=1)

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
            return _ids(name, column, where)
        case IdListDeclaration():
            return _lists(name, column, separator, where)
        case DenseVectorDeclaration():
            return _vectors(declaration.dimension, name, column, separator, where)
        case _:
            found = numbers(name, column, where)
            return [None if value != value else value for value in found.tolist()]


def numbers(name: str, column: pa.ChunkedArray, where: Where) -> npt.NDArray[np.float64]:
    """A column of numbers, or of true and false: float64 [N], NaN where there is no value.

    Raises:
        DataInvalid: a value is no number, NaN or infinite, as float32 too: what rows hold.
    """
    try:
        wide = pc.cast(column, pa.float64(), safe=False)
    except pa.ArrowException as error:
        try:
            wide = pc.cast(column, pa.bool_()).cast(pa.float64())
        except pa.ArrowException:
            raise DataInvalid(_no_number(name, column, where)) from error
    found: npt.NDArray[np.float64] = wide.to_numpy(zero_copy_only=False)
    given = ~column.is_null().to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero(given & ~_finite(found))
    if len(wrong):
        row = int(wrong[0])
        value = f"{found[row]} is no finite number (float32)"
        raise DataInvalid(f"{where(row)}: column {name}: {value}")
    return found


def _finite(found: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    with np.errstate(over="ignore"):
        return np.isfinite(found.astype(np.float32))


def times(name: str, column: pa.ChunkedArray, where: Where) -> npt.NDArray[np.int64]:
    """A column of moments as int64 [N] that grow with time.

    Numbers as they are; timestamps and dates; text as ISO 8601 has it (`2026-01-31 18:00`), UTC
    unless it says otherwise, in microseconds.

    Raises:
        DataInvalid: a value is missing, or no moment.
    """
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise DataInvalid(f"{where(row)}: column {name}: no time")
    if pa.types.is_temporal(column.type):
        moments: npt.NDArray[np.int64] = column.cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()
        return moments
    if not _is_text(column.type):
        return numbers(name, column, where).astype(np.int64)
    try:
        whole: npt.NDArray[np.int64] = pc.cast(column, pa.int64()).to_numpy()
    except pa.ArrowException:
        return _moments(name, column.to_pylist(), where)
    return whole


def _moments(name: str, texts: list[str], where: Where) -> npt.NDArray[np.int64]:
    moments = np.empty(len(texts), np.int64)
    for row, text in enumerate(texts):
        try:
            moment = datetime.fromisoformat(text)
        except ValueError as error:
            raise DataInvalid(
                f"{where(row)}: column {name}: {text!r} is no time: a whole number or ISO 8601"
            ) from error
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        moments[row] = (moment - _EPOCH) // _MICROSECOND
    return moments


def keys(name: str, column: pa.ChunkedArray, where: Where) -> npt.NDArray[np.int64]:
    """A column of ids as numbers that are the same for the same id: int64 [N].

    Raises:
        DataInvalid: an id is missing.
    """
    values = _ids(name, column, where)
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
    return f"{where(0)}: column {name}: {column.type} is no number"


def _ids(name: str, column: pa.ChunkedArray, where: Where) -> list[Any]:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if not (_is_text(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        raise DataInvalid(f"{where(0)}: column {name}: {kind} are no ids; strings and integers are")
    values: list[Any] = column.to_pylist()
    return values


def _lists(name: str, column: pa.ChunkedArray, separator: str, where: Where) -> list[Any]:
    if _is_text(column.type):
        texts = column.to_pylist()
        return [text.split(separator) if text else None if text is None else [] for text in texts]
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        raise DataInvalid(f"{where(0)}: column {name}: {column.type} is no list")
    values: list[Any] = column.to_pylist()
    return values


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _vectors(
    dimension: int, name: str, column: pa.ChunkedArray, separator: str, where: Where
) -> list[Any]:
    texts = _is_text(column.type)
    vectors: list[Any] = []
    for row, value in enumerate(column.to_pylist()):
        if value is None:
            vectors.append(None)
            continue
        try:
            vector = [float(one) for one in (value.split(separator) if texts else value)]
        except (TypeError, ValueError, AttributeError) as error:
            raise DataInvalid(f"{where(row)}: column {name}: {value!r} is no vector") from error
        if len(vector) != dimension or not _finite(np.array(vector)).all():
            raise DataInvalid(
                f"{where(row)}: column {name}: not {dimension} finite numbers: {value!r}"
            )
        vectors.append(vector)
    return vectors
