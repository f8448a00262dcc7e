"""The table that every loader produces: impressions, candidates and what came of them.

An impression is a user at a moment: the user's features as they were then, and the context. It has
one or many candidate rows, each an item with outcomes. Users and items are kept once, candidate
rows point to them, so that training computes user and item stages as serving does: once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bundle.schema import Entity
from model_export.errors import DataInvalid

Columns = Mapping[str, Sequence[Any]]
"""Feature name -> a raw value for each row; None is "no value"."""


@dataclass(frozen=True)
class Impressions:
    """Raw rows of one part of a data set.

    Attributes:
        users, contexts: columns of [U] impressions.
        items: columns of [I] items.
        user_row: int64 [N], the impression each candidate row belongs to.
        item_row: int64 [N], the item each candidate row is about.
        outcomes: float32 [N] for each observed behaviour; NaN where it was not observed.
        groups: int64 [N], a number for each person, for metrics taken per user.
        positions: int64 [N], the place at which each candidate was shown, from 0 at the top; None
            where the data does not say. For training alone: it is not known when ranking.
        origin: the file that the rows come from, or what else they are called in messages.
        origin_rows: int64 [N], the number of each candidate row in the origin, the first being 1.
    """

    users: Columns
    contexts: Columns
    items: Columns
    user_row: npt.NDArray[np.int64]
    item_row: npt.NDArray[np.int64]
    outcomes: Mapping[str, npt.NDArray[np.float32]]
    groups: npt.NDArray[np.int64]
    positions: npt.NDArray[np.int64] | None = None
    origin: str = "data"
    origin_rows: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.user_row)

    @property
    def has_positions(self) -> bool:
        """Whether rows know the place at which they were shown."""
        return self.positions is not None

    @property
    def streams(self) -> bool:
        """Never: the rows are in memory."""
        return False

    def chunks(self) -> Iterator[Impressions]:
        """All rows at once."""
        yield self

    def where(self, row: int) -> str:
        """Where candidate row `row` was read: `clicks.csv, row 17`."""
        number = row + 1 if self.origin_rows is None else int(self.origin_rows[row])
        return f"{self.origin}, row {number}"

    def count(self, entity: Entity) -> int:
        """Number of impressions (for user and context) or items."""
        sides = (self.items,) if entity == "item" else (self.users, self.contexts)
        return max(len(values) for columns in sides for values in columns.values())

    def columns(self, entity: Entity) -> Columns:
        """All raw columns of an entity."""
        return {"user": self.users, "context": self.contexts, "item": self.items}[entity]

    def column(self, entity: Entity, name: str) -> Sequence[Any]:
        """One raw column.

        Raises:
            DataInvalid: the data has no such column.
        """
        columns = self.columns(entity)
        if name not in columns:
            known = ", ".join(columns) or "none"
            raise DataInvalid(f"features: {entity}.{name}: not in the data; {entity} has {known}")
        return columns[name]

    def row_counts(self, entity: Entity) -> npt.NDArray[np.int64]:
        """How many candidate rows use each of the entity's rows: int64 [U] or [I]."""
        rows = self.item_row if entity == "item" else self.user_row
        return np.bincount(rows, minlength=self.count(entity)).astype(np.int64)


class Part(Protocol):
    """One part of a data set: raw rows in memory, or read anew each time."""

    def __len__(self) -> int:
        """Number of candidate rows."""
        ...

    @property
    def origin(self) -> str:
        """What the rows are called in messages."""
        ...

    @property
    def streams(self) -> bool:
        """Whether the rows are to be read anew each time rather than kept."""
        ...

    @property
    def has_positions(self) -> bool:
        """Whether rows know the place at which they were shown."""
        ...

    def chunks(self) -> Iterator[Impressions]:
        """All rows, chunk after chunk."""
        ...


P = TypeVar("P", bound=Part, covariant=True)


@dataclass(frozen=True)
class EntitySample:
    """Every entity of the data with its newest features, for stores, demos and load tests.

    Attributes:
        entity: user or item.
        table: one row an entity: the key, raw feature columns, display columns.
        key: the id column.
        display: columns that are no features and are good to show to a person.
    """

    entity: Entity
    table: pa.Table
    key: str
    display: tuple[str, ...] = ()


@dataclass(frozen=True)
class Feed(Generic[P]):
    """A data set, split by time; at random where its rows have none.

    Attributes:
        description: one line for people: what it is.
        train, validation, test: consecutive periods; nothing of a later one is in an earlier one.
        users, items: all entities as they are at the end; None where they have no ids.
    """

    description: str
    train: P
    validation: P
    test: P
    users: EntitySample | None
    items: EntitySample | None

    def samples(self) -> tuple[EntitySample, ...]:
        """The samples that there are."""
        return tuple(one for one in (self.users, self.items) if one is not None)

    def sizes(self) -> dict[str, int]:
        """Numbers of users, items, and rows of each part."""
        entities = {f"{one.entity}s": one.table.num_rows for one in self.samples()}
        return {
            **entities,
            "train_rows": len(self.train),
            "validation_rows": len(self.validation),
            "test_rows": len(self.test),
        }
