"""Encoding: packed feature rows -> the two input matrices of a stage.

The same class encodes in training and in serving. Whatever the number of features, one side of the
model reads two matrices, so that batching is concatenation and a session has two inputs:

    ids     int32   [rows, K]   a column for each categorical and bucketised feature, `max_length`
                                columns for each id list; every value a valid row of its table
    numbers float32 [rows, M]   a column for each number, `dimension` for each dense vector

The user side is the user's features followed by the context's; the item side is the item's.
Within an entity, ids are those of the hashed features and then those of the bucketised ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from bundle.errors import ManifestInvalid
from bundle.rows import NO_VALUE, PADDING, RowLayout, Rows, hash_value
from bundle.schema import (
    FIRST_VALUE_INDEX,
    OUT_OF_VOCABULARY_INDEX,
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

Vocabularies = Mapping[str, npt.NDArray[np.uint64]]
"""Feature key -> the hashes of its values; the value at position i has index i + 2."""

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
class SideLayout:
    """What the columns of one side's two matrices are."""

    id_columns: tuple[IdColumns, ...]
    id_width: int
    number_width: int


def side_layout(schema: FeatureSchema, side: Side) -> SideLayout:
    """The column layout of one side, as `Encoder` produces it."""
    columns: list[IdColumns] = []
    id_width = number_width = 0
    for entity in SIDE_ENTITIES[side]:
        layout = RowLayout(schema, entity)
        for slot in (*layout.hash_slots, *_slots(layout, Bucketised)):
            table = schema.owner(slot.feature).key
            columns.append(IdColumns(slot.feature, table, id_width, slot.width))
            id_width += slot.width
        number_width += sum(slot.width for slot in _slots(layout, Number, DenseVector))
    return SideLayout(tuple(columns), id_width, number_width)


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
        self.layouts: dict[Entity, RowLayout] = {}
        self._entities: dict[Entity, _EntityEncoder] = {}
        for entity in (*SIDE_ENTITIES["user"], *SIDE_ENTITIES["item"]):
            self.layouts[entity] = RowLayout(schema, entity)
            self._entities[entity] = _EntityEncoder(schema, self.layouts[entity], vocabularies)

    def user(self, users: Rows, contexts: Rows) -> Encoded:
        """Encode the user side: `users` and `contexts` are [U] rows that belong together."""
        user = self._entities["user"].encode(users)
        context = self._entities["context"].encode(contexts)
        return Encoded(
            np.concatenate((user.ids, context.ids), axis=1),
            np.concatenate((user.numbers, context.numbers), axis=1),
        )

    def item(self, items: Rows) -> Encoded:
        """Encode the item side: `items` are [N] rows."""
        return self._entities["item"].encode(items)

    def raw_number(self, entity: Entity, name: str, rows: Rows) -> npt.NDArray[np.float64]:
        """A number or bucketised feature in its own unit: float64 [rows], defaults filled in."""
        slot = self.layouts[entity].slots[name]
        values = rows["numbers"][:, slot.start].astype(np.float64)
        return np.where(np.isnan(values), _default_numbers(slot.feature)[0], values)


class _EntityEncoder:
    def __init__(
        self, schema: FeatureSchema, layout: RowLayout, vocabularies: Vocabularies
    ) -> None:
        width = layout.hash_width
        defaults = np.zeros(width, np.uint64)
        salts = np.zeros(width, np.uint64)
        buckets = np.zeros(width, np.uint64)
        salt_of: dict[str, np.uint64] = {}
        for slot in layout.hash_slots:
            owner = schema.owner(slot.feature)
            assert isinstance(owner, Categorical | IdList)  # by FeatureSchema
            hashed = [hash_value(value) for value in _default_values(slot.feature)[: slot.width]]
            defaults[slot.start : slot.start + len(hashed)] = hashed
            salts[slot.columns] = salt_of.setdefault(
                owner.key, np.uint64(hash_value(owner.key) if owner.vocabulary_size else 0)
            )
            buckets[slot.columns] = owner.hash_buckets or 0
        self._first_column = layout.first_column
        self._default_hashes = defaults
        self._salts = salts
        self._hashed_columns = np.flatnonzero(buckets)
        self._known_columns = np.flatnonzero(buckets == 0)
        self._buckets = buckets[self._hashed_columns]

        tables = [(salt, vocabularies[key]) for key, salt in salt_of.items() if salt]
        keys = [values ^ salt for salt, values in tables]
        indices = [np.arange(len(values)) + FIRST_VALUE_INDEX for _, values in tables]
        self._keys = np.concatenate(keys) if keys else np.zeros(0, np.uint64)
        order = np.argsort(self._keys, kind="stable")
        self._keys = self._keys[order]
        if (self._keys[1:] == self._keys[:-1]).any():
            raise ManifestInvalid(f"{layout.entity}: a vocabulary holds a value twice")
        self._indices = (
            np.concatenate(indices).astype(np.int32)[order] if keys else np.zeros(0, np.int32)
        )

        self._number_defaults = np.concatenate(
            [_default_numbers(slot.feature) for slot in layout.number_slots]
            or [np.zeros(0, np.float32)]
        )
        self._number_width = layout.number_width
        self._bucketised = [
            (slot.start, np.asarray(slot.feature.boundaries, np.float32))
            for slot in _slots(layout, Bucketised)
            if isinstance(slot.feature, Bucketised)
        ]
        dense: list[int] = []
        mean: list[float] = []
        std: list[float] = []
        for slot in _slots(layout, Number, DenseVector):
            dense.extend(range(slot.start, slot.start + slot.width))
            scaled = isinstance(slot.feature, Number)
            mean.extend([slot.feature.mean if scaled else 0.0] * slot.width)
            std.extend([slot.feature.std if scaled else 1.0] * slot.width)
        self._dense_columns = np.array(dense, np.intp)
        self._mean = np.array(mean, np.float32)
        self._inverse_std = (1.0 / np.array(std, np.float64)).astype(np.float32)

    def encode(self, rows: Rows) -> Encoded:
        hashes = rows["hashes"]
        absent = (hashes == NO_VALUE)[:, self._first_column]
        hashes = np.where(absent, self._default_hashes, hashes)
        numbers = rows["numbers"][:, : self._number_width]
        numbers = np.where(np.isnan(numbers), self._number_defaults, numbers)

        hash_width = hashes.shape[1]
        ids = np.empty((len(rows), hash_width + len(self._bucketised)), np.int32)
        ids[:, self._known_columns] = self._look_up(hashes[:, self._known_columns])
        if len(self._hashed_columns):
            ids[:, self._hashed_columns] = (
                hashes[:, self._hashed_columns] % self._buckets + FIRST_VALUE_INDEX
            )
        ids[:, :hash_width][hashes == PADDING] = PADDING_INDEX
        for column, (start, boundaries) in enumerate(self._bucketised, hash_width):
            bucket = np.searchsorted(boundaries, numbers[:, start], side="right")
            ids[:, column] = bucket + FIRST_VALUE_INDEX
        standardised = (numbers[:, self._dense_columns] - self._mean) * self._inverse_std
        return Encoded(ids, standardised)

    def _look_up(self, hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.int32]:
        if not len(self._keys):
            return np.full(hashes.shape, OUT_OF_VOCABULARY_INDEX, np.int32)
        wanted = hashes ^ self._salts[self._known_columns]
        position = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        known = self._keys[position] == wanted
        return np.where(known, self._indices[position], np.int32(OUT_OF_VOCABULARY_INDEX))


def _slots(layout: RowLayout, *kinds: type[Feature]) -> Iterator[Any]:
    return (slot for slot in layout.number_slots if isinstance(slot.feature, kinds))


def _default_values(feature: Feature) -> tuple[str, ...]:
    if isinstance(feature, Categorical):
        return (feature.default,)
    return feature.default if isinstance(feature, IdList) else ()


def _default_numbers(feature: Feature) -> npt.NDArray[np.float32]:
    if isinstance(feature, DenseVector):
        return np.asarray(feature.default or (0.0,) * feature.dimension, np.float32)
    assert isinstance(feature, Number | Bucketised)
    return np.asarray([feature.default], np.float32)
