"""Example rows and samples of a specification: raw values from files -> packed rows, tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from bundle.encoding import Encoded, Encoder
from bundle.errors import ValueRejected
from bundle.rows import Rows
from bundle.schema import ENTITIES, Entity
from model_export.data.impressions import EntitySample
from model_export.foreign.specification import Specification, nearest

Columns = dict[str, Sequence[Any]]


@dataclass(frozen=True)
class ExampleRows:
    """Candidates with the users and contexts that they were asked for.

    Attributes:
        users, contexts, items: [N] packed rows that belong together.
        given: float32 [N, T], the scores that came with them, or None.
    """

    encoder: Encoder
    users: Rows
    contexts: Rows
    items: Rows
    given: npt.NDArray[np.float32] | None

    def __len__(self) -> int:
        return len(self.items)

    def encoded(self, users: int, items: int) -> tuple[Encoded, Encoded]:
        """So many users and items, going round the rows as often as that takes."""
        user_rows, item_rows = np.arange(users) % len(self), np.arange(items) % len(self)
        return (
            self.encoder.user(self.users[user_rows], self.contexts[user_rows]),
            self.encoder.item(self.items[item_rows]),
        )


def read_examples(specification: Specification, encoder: Encoder) -> ExampleRows:
    """The example rows of a specification.

    Raises:
        SpecInvalid: the file cannot be read, a column is absent or unknown, a value does not fit.
    """
    columns, place = _columns(specification)
    keys = {feature.key for feature in specification.features.features}
    tasks = [task.name for task in specification.spec.tasks]
    for name in columns:
        if name not in keys and name not in tasks:
            hint = nearest(name, [*keys, *tasks])
            raise specification.error(place, f"column {name}: no feature and no task{hint}")
    if absent := sorted(keys - set(columns)):
        raise specification.error(place, f"no column {', '.join(absent)}")
    scored = [name for name in tasks if name in columns]
    if scored and scored != tasks:
        missing = ", ".join(name for name in tasks if name not in columns)
        raise specification.error(place, f"scores for {', '.join(scored)} but not for {missing}")
    count = len(next(iter(columns.values())))
    if not count:
        raise specification.error(place, "at least one row is needed")
    packed: dict[Entity, Rows] = {}
    for entity in ENTITIES:
        named = {key.partition(".")[2]: columns[key] for key in keys if key.startswith(entity)}
        try:
            packed[entity] = encoder.layouts[entity].pack(named, count)
        except ValueRejected as error:
            where = f"{place}[{error.row}]" if error.row is not None else place
            raise specification.error(where, f"{entity}.{error.feature}: {error.reason}") from error
    given = None
    if scored:
        try:
            given = np.stack([np.asarray(columns[name], np.float32) for name in tasks], axis=1)
        except (TypeError, ValueError) as error:
            raise specification.error(place, f"a score is no number: {error}") from error
    return ExampleRows(encoder, packed["user"], packed["context"], packed["item"], given)


def read_samples(specification: Specification) -> tuple[EntitySample, ...]:
    """The samples of a specification; empty ones of the entities that it has none of.

    Without, the embedded store could not tell "no such user" from "no table of users".

    Raises:
        SpecInvalid: a file cannot be read or lacks a column.
    """
    found = []
    sampled: tuple[Literal["user", "item"], ...] = ("user", "item")
    for entity in sampled:
        features = [f.name for f in specification.features.of(entity)]
        sample = specification.spec.samples.get(entity)
        if sample is None:
            key = f"{entity}_id"
            names = dict.fromkeys([key, *features])
            table = pa.table({name: pa.array([], pa.null()) for name in names})
            found.append(EntitySample(entity, table, key))
            continue
        place = f"samples.{entity}"
        table = _read_table(specification, place, sample.file)
        for name in (sample.key, *sample.display, *features):
            if name not in table.column_names:
                hint = nearest(name, table.column_names)
                raise specification.error(place, f"{sample.file}: no column {name}{hint}")
        found.append(EntitySample(entity, table, sample.key, sample.display))
    return tuple(found)


def _columns(specification: Specification) -> tuple[Columns, str]:
    """The raw columns of the examples, and what to call them in an error."""
    examples = specification.spec.examples
    if isinstance(examples, str):
        table = _read_table(specification, "examples", examples)
        return {name: table.column(name).to_pylist() for name in table.column_names}, "examples"
    names = dict.fromkeys(name for row in examples for name in row)
    return {name: [row.get(name) for row in examples] for name in names}, "examples"


def _read_table(specification: Specification, place: str, file: str) -> pa.Table:
    path: Path = specification.path.parent / file
    try:
        return pq.read_table(path)
    except (OSError, ValueError) as error:
        raise specification.error(place, f"{file}: not a readable Parquet file: {error}") from error
