"""Encoding: packed feature rows -> the two input matrices of a stage.

The same class encodes in training and in serving. Whatever the number of features, one side of the
model reads two matrices, so that batching is concatenation and a session has two inputs:

    ids     int32   [rows, K]   a column for each categorical and bucketised feature, `max_length`
                                columns for each id list; every value a valid row of its table
    numbers float32 [rows, M]   a column for each number, `dimension` for each dense vector

The user side is the user's features followed by the context's; the item side is the item's.
A side's id columns are those of its hashed features, then those of its bucketised ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from bundle.errors import ManifestInvalid
from bundle.packing import NO_VALUE, PADDING, hash_value
from bundle.rows import RowLayout, Rows, Slot
from bundle.schema import (
    ENTITIES,
    FIRST_VALUE_INDEX,
    PADDING_INDEX,
    Bucketised,
    Categorical,
    DenseVector,
    Entity,
    Feature,
    FeatureSchema,
    IdList,
    Number,
)
from bundle.vocabulary import Vocabularies, VocabularyIndex

Side = Literal["user", "item"]
SIDE_ENTITIES: dict[Side, tuple[Entity, ...]] = {"user": ("user", "context"), "item": ("item",)}


@dataclass(frozen=True)
class Encoded:
    """The input of one stage.

    Attributes:
        ids: int32 [rows, K].
        numbers: float32 [rows, M].
    """

    ids: npt.NDArray[np.int32]
    numbers: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Any) -> Encoded:
        """The selected rows, in that order; `rows` is an index array or a slice."""
        return Encoded(self.ids[rows], self.numbers[rows])

    @staticmethod
    def concatenate(parts: list[Encoded]) -> Encoded:
        """All rows of `parts`, one after the other."""
        if len(parts) == 1:
            return parts[0]
        return Encoded(
            np.concatenate([part.ids for part in parts]),
            np.concatenate([part.numbers for part in parts]),
        )


@dataclass(frozen=True)
class IdColumns:
    """The id columns of one feature: `width` columns from `start`, rows of the table `table`."""

    feature: Feature
    table: str
    start: int
    width: int

    @property
    def pooled(self) -> bool:
        """Whether the columns are a padded list, to be pooled, rather than one value."""
        return isinstance(self.feature, IdList)


@dataclass(frozen=True)
class NumberColumns:
    """The number columns of one feature: `width` columns from `start`."""

    feature: Feature
    start: int
    width: int


@dataclass(frozen=True)
class SideLayout:
    """What the columns of one side's two matrices are."""

    id_columns: tuple[IdColumns, ...]
    number_columns: tuple[NumberColumns, ...]
    id_width: int
    number_width: int


def side_layout(schema: FeatureSchema, side: Side) -> SideLayout:
    """The column layout of one side, as `Encoder` produces it."""
    layouts = [RowLayout(schema, entity) for entity in SIDE_ENTITIES[side]]
    hashed = [slot for layout in layouts for slot in layout.hash_slots]
    columns: list[IdColumns] = []
    id_width = 0
    for slot in (*hashed, *_slots(layouts, Bucketised)):
        table = schema.owner(slot.feature).key
        columns.append(IdColumns(slot.feature, table, id_width, slot.width))
        id_width += slot.width
    numbers: list[NumberColumns] = []
    number_width = 0
    for slot in _slots(layouts, Number, DenseVector):
        numbers.append(NumberColumns(slot.feature, number_width, slot.width))
        number_width += slot.width
    return SideLayout(tuple(columns), tuple(numbers), id_width, number_width)


class Encoder:
    """Encodes the rows of users, contexts and items of one model version.

    Args:
        schema: the model's features.
        vocabularies: an entry for each feature that has a vocabulary of its own.

    Raises:
        ManifestInvalid: a vocabulary is absent, of another size, or holds a value twice.
    """

    def __init__(self, schema: FeatureSchema, vocabularies: Vocabularies) -> None:
        for owner in schema.vocabulary_owners():
            values = vocabularies.get(owner.key)
            if values is None or len(values) != owner.vocabulary_size:
                found = "absent" if values is None else f"of size {len(values)}"
                raise ManifestInvalid(
                    f"{owner.key}: vocabulary is {found}, expected {owner.vocabulary_size} values"
                )
        self.layouts = {entity: RowLayout(schema, entity) for entity in ENTITIES}
        self._user, self._item = (
            _SideEncoder(schema, [self.layouts[each] for each in entities], vocabularies)
            for entities in SIDE_ENTITIES.values()
        )

    def user(self, users: Rows, contexts: Rows) -> Encoded:
        """Encode the user side: `users` and `contexts` are [U] rows that belong together."""
        return self._user.encode(
            np.concatenate((users["hashes"], contexts["hashes"]), axis=1),
            np.concatenate((users["numbers"], contexts["numbers"]), axis=1),
        )

    def item(self, items: Rows) -> Encoded:
        """Encode the item side: `items` are [N] rows."""
        return self._item.encode(items["hashes"], items["numbers"])

    def raw_number(self, entity: Entity, name: str, rows: Rows) -> npt.NDArray[np.float64]:
        """A number or bucketised feature in its own unit: float64 [rows], defaults filled in."""
        slot = self.layouts[entity].slots[name]
        values = rows["numbers"][:, slot.start].astype(np.float64)
        return np.where(np.isnan(values), _default_numbers(slot.feature)[0], values)


class _SideEncoder:
    """Encodes the blocks of a side: its entities' `hashes` and `numbers`, column after column."""

    def __init__(
        self, schema: FeatureSchema, layouts: list[RowLayout], vocabularies: Vocabularies
    ) -> None:
        first_columns: list[npt.NDArray[np.intp]] = []
        hash_width = 0
        for layout in layouts:
            first_columns.append(layout.first_column + hash_width)
            hash_width += layout.hash_width
        self._first_column = np.concatenate(first_columns)
        self._default_hashes = np.zeros(hash_width, np.uint64)
        self._salts = np.zeros(hash_width, np.uint64)
        buckets = np.zeros(hash_width, np.uint64)
        salt_of: dict[str, np.uint64] = {}
        start = 0
        for slot in (slot for layout in layouts for slot in layout.hash_slots):
            columns = slice(start, start + slot.width)
            owner = schema.owner(slot.feature)
            assert isinstance(owner, Categorical | IdList)  # by FeatureSchema
            hashed = [hash_value(value) for value in _default_values(slot.feature)[: slot.width]]
            self._default_hashes[start : start + len(hashed)] = hashed
            if owner.hash_buckets is not None:
                buckets[columns] = owner.hash_buckets
            else:
                salt = salt_of.setdefault(owner.key, np.uint64(hash_value(owner.key)))
                self._salts[columns] = salt
            start += slot.width
        self._hash_width = hash_width
        self._hashed_columns = np.flatnonzero(buckets)
        self._buckets = buckets[self._hashed_columns]
        self._has_lists = any(
            isinstance(slot.feature, IdList) for layout in layouts for slot in layout.hash_slots
        )
        self._vocabulary = VocabularyIndex(salt_of, vocabularies)
        self._plan_numbers(layouts)

    def _plan_numbers(self, layouts: list[RowLayout]) -> None:
        defaults = [np.zeros(0, np.float32)]
        self._bucketised: list[tuple[int, npt.NDArray[np.float32]]] = []
        scaled: list[int] = []
        mean: list[float] = []
        std: list[float] = []
        start = 0
        for layout in layouts:
            for slot in layout.number_slots:
                feature = slot.feature
                defaults.append(_default_numbers(feature))
                if isinstance(feature, Bucketised):
                    boundaries = np.asarray(feature.boundaries, np.float32)
                    self._bucketised.append((start + slot.start, boundaries))
                    continue
                scaled.extend(range(start + slot.start, start + slot.start + slot.width))
                scale = (feature.mean, feature.std) if isinstance(feature, Number) else (0.0, 1.0)
                mean.extend([scale[0]] * slot.width)
                std.extend([scale[1]] * slot.width)
            padding = layout.dtype["numbers"].shape[0] - layout.number_width
            defaults.append(np.zeros(padding, np.float32))
            start += layout.number_width + padding
        self._default_numbers = np.concatenate(defaults)
        self._scaled_columns = np.array(scaled, np.intp)
        self._mean = np.array(mean, np.float32)
        self._inverse_std = (1.0 / np.array(std, np.float64)).astype(np.float32)

    def encode(self, hashes: npt.NDArray[np.uint64], numbers: npt.NDArray[np.float32]) -> Encoded:
        absent = hashes == NO_VALUE
        if absent.any():
            hashes = np.where(absent[:, self._first_column], self._default_hashes, hashes)
        not_given = np.isnan(numbers)
        if not_given.any():
            numbers = np.where(not_given, self._default_numbers, numbers)

        ids = np.empty((len(hashes), self._hash_width + len(self._bucketised)), np.int32)
        hashed_ids = ids[:, : self._hash_width]
        hashed_ids[:] = self._vocabulary.find(hashes ^ self._salts)
        if len(self._hashed_columns):
            hashed_ids[:, self._hashed_columns] = (
                hashes[:, self._hashed_columns] % self._buckets + FIRST_VALUE_INDEX
            )
        if self._has_lists:
            hashed_ids[hashes == PADDING] = PADDING_INDEX
        for column, (start, boundaries) in enumerate(self._bucketised, self._hash_width):
            bucket = np.searchsorted(boundaries, numbers[:, start], side="right")
            ids[:, column] = bucket + FIRST_VALUE_INDEX
        with np.errstate(over="ignore"):  # infinity is found in the scores
            scaled = (numbers[:, self._scaled_columns] - self._mean) * self._inverse_std
        return Encoded(ids, scaled)


def _slots(layouts: list[RowLayout], *kinds: type[Feature]) -> Iterator[Slot]:
    return (s for layout in layouts for s in layout.number_slots if isinstance(s.feature, kinds))


def _default_values(feature: Feature) -> tuple[str, ...]:
    if isinstance(feature, Categorical):
        return (feature.default,)
    return feature.default if isinstance(feature, IdList) else ()


def _default_numbers(feature: Feature) -> npt.NDArray[np.float32]:
    if isinstance(feature, DenseVector):
        return np.asarray(feature.default or (0.0,) * feature.dimension, np.float32)
    assert isinstance(feature, Number | Bucketised)
    return np.asarray([feature.default], np.float32)
