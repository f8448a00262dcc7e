"""Packed feature rows: the raw values of one entity, typed, in a fixed number of bytes.

A row is what a feature store keeps and what a request's inline features become; encoding starts
from it, in training as in serving. All rows of an entity have one layout:

    layout   u8         hash of the layout: names, kinds and lengths, in order
    written  i8         when the row was written, milliseconds since the epoch
    checksum u8         content hash of hashes and numbers, mixed with `written`
    hashes   u8[H]      a stable 64-bit hash for each categorical, `max_length` for each id list
    numbers  f4[M]      one for each number and bucketised number, `dimension` for each vector

so N rows joined together decode in one `numpy.frombuffer`, whatever the number of features.
A value that is not there is 1 among the hashes (0 pads id lists) and NaN among the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import xxhash

from bundle.errors import ValueRejected
from bundle.packing import NO_VALUE, pack_values
from bundle.schema import (
    Bucketised,
    Categorical,
    DenseVector,
    Entity,
    Feature,
    FeatureSchema,
    IdList,
    Number,
)

Rows = npt.NDArray[np.void]
_HEADER_WORDS = 3  # layout, written, checksum
_MIX_1 = np.uint64(0xFF51AFD7ED558CCD)
_MIX_2 = np.uint64(0xC4CEB9FE1A85EC53)


@dataclass(frozen=True)
class Slot:
    """Where a feature's values lie: `width` columns from `start` in `hashes` or `numbers`."""

    feature: Feature
    start: int
    width: int

    @property
    def columns(self) -> slice:
        """The feature's columns in its block."""
        return slice(self.start, self.start + self.width)


class RowLayout:
    """The layout of one entity's rows under a schema.

    Attributes:
        hash_slots: categorical features and id lists, in schema order.
        number_slots: numbers, bucketised numbers and dense vectors, in schema order.
        required: names of the features whose default must not be used.
        first_column: [H], for each column of `hashes` the first one of its feature.
        dtype: the numpy dtype of a row; `dtype.itemsize` bytes each.
        digest: hash of names, kinds and lengths; rows of another digest are not read.
    """

    def __init__(self, schema: FeatureSchema, entity: Entity) -> None:
        self.entity = entity
        hash_slots: list[Slot] = []
        number_slots: list[Slot] = []
        hashes = numbers = 0
        for feature in schema.of(entity):
            match feature:
                case Categorical() | IdList():
                    width = feature.max_length if isinstance(feature, IdList) else 1
                    hash_slots.append(Slot(feature, hashes, width))
                    hashes += width
                case Number() | Bucketised() | DenseVector():
                    width = feature.dimension if isinstance(feature, DenseVector) else 1
                    number_slots.append(Slot(feature, numbers, width))
                    numbers += width
        self.hash_slots = tuple(hash_slots)
        self.number_slots = tuple(number_slots)
        self.slots: dict[str, Slot] = {
            slot.feature.name: slot for slot in (*hash_slots, *number_slots)
        }
        self.required = tuple(name for name, s in self.slots.items() if s.feature.required)
        self._first_of_each = (
            np.array([slot.start for slot in hash_slots], np.intp),
            np.array([slot.start for slot in number_slots], np.intp),
        )
        padded_numbers = numbers + numbers % 2  # whole 64-bit words, for the checksum
        self.hash_width = hashes
        self.number_width = numbers
        self.first_column = np.zeros(hashes, np.intp)
        for slot in hash_slots:
            self.first_column[slot.columns] = slot.start
        self.dtype = np.dtype(
            [
                ("layout", "<u8"),
                ("written", "<i8"),
                ("checksum", "<u8"),
                ("hashes", "<u8", (hashes,)),
                ("numbers", "<f4", (padded_numbers,)),
            ]
        )
        described = ";".join(
            f"{slot.feature.name}:{slot.feature.kind}:{slot.width}"
            for slot in (*hash_slots, *number_slots)
        )
        self.digest = np.uint64(xxhash.xxh3_64_intdigest(f"{entity}|{described}".encode()))
        words = self.dtype.itemsize // 8 - _HEADER_WORDS
        self._salts = np.array(
            [xxhash.xxh3_64_intdigest(b"multirank-row", seed=word) for word in range(words)],
            dtype=np.uint64,
        )
        self._empty = np.zeros(1, self.dtype)
        self._empty["layout"] = self.digest
        self._empty["numbers"][:, :numbers] = np.nan
        self._empty["hashes"][:, self._first_of_each[0]] = NO_VALUE

    def empty(self, count: int) -> Rows:
        """`count` rows without a single value, not sealed."""
        return self._empty.repeat(count)

    def pack(self, columns: Mapping[str, Sequence[Any]], count: int) -> Rows:
        """Pack raw values, column by column, into `count` rows; features not given stay empty.

        Args:
            columns: feature name -> one raw value a row; None is "no value".
            count: number of rows.

        Raises:
            ValueRejected: an unknown feature, a column of another length, or a value that does
                not fit the feature's kind.
        """
        rows = self.empty(count)
        hashes, numbers = rows["hashes"], rows["numbers"]
        for name, values in columns.items():
            slot = self.slots.get(name)
            if slot is None:
                known = ", ".join(self.slots) or "none"
                raise ValueRejected(
                    name, None, f"unknown {self.entity} feature; the model knows: {known}"
                )
            if len(values) != count:
                raise ValueRejected(name, None, f"has {len(values)} values for {count} rows")
            block = hashes if isinstance(slot.feature, Categorical | IdList) else numbers
            pack_values(slot.feature, values, block[:, slot.columns])
        return rows

    def seal(self, rows: Rows, written_ms: int) -> Rows:
        """Stamp write time and checksum into `rows`, in place, and return them."""
        rows["written"] = written_ms
        rows["checksum"] = self.content_hash(rows) ^ _mix(rows["written"].astype(np.uint64))
        return rows

    def content_hash(self, rows: Rows) -> npt.NDArray[np.uint64]:
        """A 64-bit hash of each row's values [rows], independent of when it was written."""
        return _mix(self._digest_values(self._words(np.ascontiguousarray(rows))))

    def _words(self, rows: Rows) -> npt.NDArray[np.uint64]:
        return rows.view(np.uint64).reshape(len(rows), _HEADER_WORDS + len(self._salts))

    def _digest_values(self, words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        mixed = _mix(words[:, _HEADER_WORDS:] ^ self._salts)
        summed: npt.NDArray[np.uint64] = mixed.sum(axis=1, dtype=np.uint64)
        return summed

    def decode(self, blobs: Sequence[bytes | None]) -> Decoded:
        """Decode stored rows in one step; a row that cannot be trusted comes out empty.

        Args:
            blobs: one stored row, or None, for each id.
        """
        size = self.dtype.itemsize
        if None not in blobs:
            joined = bytearray().join(cast("Sequence[bytes]", blobs))
            if len(joined) == size * len(blobs):
                rows, content, intact = self._verify(joined)
                if intact.all():  # so each begins where it should
                    none = np.zeros(len(rows), bool)
                    return Decoded(rows, content, found=intact, foreign=none, corrupt=none)
        blank = bytes(size)
        whole = np.array([b is not None and len(b) == size for b in blobs], bool)
        present = [b if b is not None and len(b) == size else blank for b in blobs]
        rows, content, intact = self._verify(bytearray().join(present))
        intact &= whole
        empty = self.empty(1)
        rows[~intact], content[~intact] = empty[0], self.content_hash(empty)[0]
        mark = self.digest.tobytes()
        foreign = np.array([b is not None and len(b) >= 8 and b[:8] != mark for b in blobs], bool)
        stored = np.array([blob is not None for blob in blobs], bool)
        corrupt = stored & ~intact & ~foreign
        return Decoded(rows, content, found=intact, foreign=foreign, corrupt=corrupt)

    def _verify(
        self, joined: bytearray
    ) -> tuple[Rows, npt.NDArray[np.uint64], npt.NDArray[np.bool_]]:
        """Rows, their content hashes, and whether layout and checksum are right."""
        rows: Rows = np.frombuffer(joined, self.dtype)
        words = self._words(rows)
        content, written = _mix(np.array((self._digest_values(words), words[:, 1])))
        intact = (words[:, 0] == self.digest) & (words[:, 2] == content ^ written)
        return rows, content, intact

    def overlay(self, rows: Rows, inline: Rows) -> None:
        """Write the values that `inline` has over those of `rows`, in place."""
        given = (inline["hashes"] != NO_VALUE)[:, self.first_column]
        np.copyto(rows["hashes"], inline["hashes"], where=given)
        np.copyto(rows["numbers"], inline["numbers"], where=~np.isnan(inline["numbers"]))

    def missing(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """Which values `rows` do not have: bool [rows, features], in the order of `slots`."""
        hashed, numeric = self._first_of_each
        return np.concatenate(
            (rows["hashes"][:, hashed] == NO_VALUE, np.isnan(rows["numbers"][:, numeric])), axis=1
        )

    def complete(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """Which rows lack no value: bool [rows]."""
        hashed, numeric = self._first_of_each
        whole: npt.NDArray[np.bool_] = (rows["hashes"].take(hashed, axis=1) != NO_VALUE).all(axis=1)
        if len(numeric):
            whole &= ~np.isnan(rows["numbers"].take(numeric, axis=1)).any(axis=1)
        return whole


@dataclass(frozen=True)
class Decoded:
    """Stored rows, decoded.

    Attributes:
        rows: [n] rows; those not found are empty.
        content: uint64 [n], their content hashes.
        found: [n] bool, stored and intact.
        foreign: [n] bool, stored under another layout.
        corrupt: [n] bool, truncated or damaged.
    """

    rows: Rows
    content: npt.NDArray[np.uint64]
    found: npt.NDArray[np.bool_]
    foreign: npt.NDArray[np.bool_]
    corrupt: npt.NDArray[np.bool_]


def _mix(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """MurmurHash3's 64-bit finaliser, in place: every input bit reaches every output bit."""
    words ^= words >> np.uint64(33)
    words *= _MIX_1
    words ^= words >> np.uint64(33)
    words *= _MIX_2
    words ^= words >> np.uint64(33)
    return words
