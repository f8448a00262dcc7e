"""From the files of a table to a feed: which rows are in which part, what their columns mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bundle.schema import Entity
from model_export.data.declarations import FeatureDeclaration
from model_export.data.impressions import Columns, EntitySample, Feed, Impressions
from model_export.data.random_split import RandomSplit
from model_export.data.table import files, values
from model_export.data.table.files import Group
from model_export.data.table.options import TableOptions
from model_export.data.table.values import Where
from model_export.data.tasks import TaskDeclaration
from model_export.errors import DataInvalid

_PARTS = ("training", "validation", "test")
_ENTITIES: tuple[Entity, ...] = ("user", "context", "item")


def load(
    options: TableOptions,
    features: Sequence[FeatureDeclaration],
    tasks: Sequence[TaskDeclaration],
) -> Feed[TablePart]:
    """Open a table and split it.

    Raises:
        DataInvalid: a file is missing, empty or damaged, a column is missing, a value is wrong, or
            a part gets no row.
    """
    table = Table(options, features, tasks)
    train, validation, test = (TablePart(table, part) for part in range(3))
    for part in (train, validation, test):
        if not len(part):
            raise DataInvalid(f"{table.name}: no row is in the {_PARTS[part.part]} part")
    return Feed(
        description=f"{table.name}, {'streamed' if options.streaming else 'in memory'}",
        train=train,
        validation=validation,
        test=test,
        users=_sample(table, "user", options.user),
        items=_sample(table, "item", options.item),
    )


class Table:
    """An opened table: its groups, and the part that each row is in."""

    def __init__(
        self,
        options: TableOptions,
        features: Sequence[FeatureDeclaration],
        tasks: Sequence[TaskDeclaration],
    ) -> None:
        self.options, self.features = options, tuple(features)
        self.outcomes = sorted({n for t in tasks for n in (t.label or t.name, t.where) if n})
        self.paths = files.find(options.files)
        self.name = ", ".join(path.name for path in self.paths)
        unknown = sorted(set(options.columns) - {feature.key for feature in features})
        if unknown:
            raise DataInvalid(f"data.columns: no feature is called {', '.join(unknown)}")
        wanted = [self.column_of(feature) for feature in features] + self.outcomes
        optional = (options.user, options.item, options.impression, options.position)
        wanted += [column for column in optional if column is not None]
        if not isinstance(options.split, RandomSplit):
            wanted.append(options.split.column)
        self.columns = list(dict.fromkeys(wanted))
        self._whole: dict[Group, pa.Table] = {}
        self.groups = self._open()
        self.part_of = self._split()

    def column_of(self, feature: FeatureDeclaration) -> str:
        """The column that a feature is read from."""
        return self.options.columns.get(feature.key, feature.name)

    def raw_columns(self, entity: Entity, read: pa.Table, where: Where) -> dict[str, list[Any]]:
        """The values of an entity's features in rows that were read."""
        separator = self.options.list_separator
        return {
            feature.name: values.raw_values(feature, column, read[column], separator, where)
            for feature in self.features
            if feature.entity == entity
            for column in (self.column_of(feature),)
        }

    def read(self, group: Group) -> pa.Table:
        """The columns of a group."""
        whole = self._whole.get(group)
        return files.read_group(group, self.columns) if whole is None else whole

    def _open(self) -> list[Group]:
        if self.options.streaming:
            text = [str(path) for path in self.paths if files.is_csv(path)]
            if text:
                raise DataInvalid(f"{text[0]}: only Parquet can be streamed")
            return files.groups(self.paths, self.columns)
        first = 0
        for path in self.paths:
            table = files.read(path, self.columns)
            self._whole[Group(path, 0, first, 0, table.num_rows)] = table
            first += table.num_rows
        return list(self._whole)

    def _split(self) -> dict[Group, npt.NDArray[np.int8]]:
        """The part of each row of each group: 0 training, 1 validation, 2 test."""
        split = self.options.split
        if isinstance(split, RandomSplit):
            of_all = split.parts(sum(group.rows for group in self.groups))
        else:
            times = np.concatenate([self._times(group, split.column) for group in self.groups])
            of_all = split.periods(times).astype(np.int8)
        ends = np.cumsum([group.rows for group in self.groups])[:-1]
        return dict(zip(self.groups, np.split(of_all, ends), strict=True))

    def _times(self, group: Group, column: str) -> npt.NDArray[np.int64]:
        whole = self._whole.get(group)
        table = files.read_group(group, [column]) if whole is None else whole
        return values.times(column, table[column], _where(group))


@dataclass(frozen=True)
class TablePart:
    """One part of a table, read anew each time; a chunk is a row group's rows of the part."""

    table: Table
    part: int

    def __len__(self) -> int:
        return sum(len(self._rows_of(group)) for group in self.groups)

    def _rows_of(self, group: Group) -> npt.NDArray[np.int64]:
        """The rows of a group that are of this part, counted within the group."""
        return np.flatnonzero(self.table.part_of[group] == self.part)

    @property
    def origin(self) -> str:
        """What the rows are called in messages."""
        return self.table.name

    @property
    def streams(self) -> bool:
        """Whether the rows are to be read anew each time rather than kept."""
        return self.table.options.streaming

    @property
    def has_positions(self) -> bool:
        """Whether rows know the place at which they were shown."""
        return self.table.options.position is not None

    @cached_property
    def groups(self) -> list[Group]:
        """The groups that have rows of this part."""
        return [group for group in self.table.groups if len(self._rows_of(group))]

    def chunks(self) -> Iterator[Impressions]:
        """The part's rows, group after group."""
        for number in range(len(self.groups)):
            yield self.chunk(number)

    def chunk(self, number: int) -> Impressions:
        """The part's rows of one of its groups.

        Raises:
            DataInvalid: a value is wrong; names file, row and column.
        """
        table, group = self.table, self.groups[number]
        rows = self._rows_of(group)
        read = table.read(group).take(pa.array(rows))
        whole = _where(group)

        def where(row: int) -> str:
            return whole(int(rows[row]))

        options = table.options
        sides = {entity: table.raw_columns(entity, read, where) for entity in _ENTITIES}
        alone = np.arange(len(rows))
        user_row, firsts = alone, alone
        if options.impression is not None:
            shown = values.keys(options.impression, read[options.impression], where)
            _, firsts, user_row = np.unique(shown, return_index=True, return_inverse=True)
        position = options.position
        return Impressions(
            users=_taken(sides["user"], firsts),
            contexts=_taken(sides["context"], firsts),
            items=sides["item"],
            user_row=user_row,
            item_row=alone,
            outcomes={
                name: values.numbers(name, read[name], where).astype(np.float32)
                for name in table.outcomes
            },
            groups=(
                alone
                if options.user is None
                else values.keys(options.user, read[options.user], where)
            ),
            positions=None if position is None else _positions(position, read[position], where),
            origin=str(group.path),
            origin_rows=rows + group.first_in_file + 1,
        )


def _where(group: Group) -> Where:
    return lambda row: f"{group.path}, row {group.first_in_file + row + 1}"


def _taken(columns: dict[str, list[Any]], rows: npt.NDArray[np.int64]) -> Columns:
    chosen = rows.tolist()
    return {name: [column[row] for row in chosen] for name, column in columns.items()}


def _positions(name: str, column: pa.ChunkedArray, where: Where) -> npt.NDArray[np.int64]:
    found = values.numbers(name, column, where)
    wrong = np.flatnonzero(~((found >= 0) & (found == np.floor(found))))
    if len(wrong):
        row = int(wrong[0])
        raise DataInvalid(f"{where(row)}: column {name}: {found[row]} is no position from 0 on")
    return found.astype(np.int64)


def _sample(table: Table, entity: Entity, key: str | None) -> EntitySample | None:
    """The entities with the values of their last row: in the whole table, in the last row group
    where it is streamed.
    """
    if key is None:
        return None
    newest: dict[Any, list[Any]] = {}
    names: list[str] = []
    for group in table.groups[-1:] if table.options.streaming else table.groups:
        read, where = table.read(group), _where(group)
        hashes = values.keys(key, read[key], where)
        _, last = np.unique(hashes[::-1], return_index=True)
        rows = read.take(pa.array(np.sort(len(hashes) - 1 - last)))
        columns = table.raw_columns(entity, rows, where)
        names = [name for name in columns if name != key]
        ids = rows[key].to_pylist()
        newest |= {one: [columns[name][row] for name in names] for row, one in enumerate(ids)}
    sample = {key: [str(one) for one in newest]}
    sample |= {name: [row[at] for row in newest.values()] for at, name in enumerate(names)}
    return EntitySample(entity, pa.table(sample), key=key)
