"""The fields of a specification: what a graph's inputs are fed with, what its outputs mean.

model: clicks
features:                                # kinds as in `bundle.schema`
  - {name: age, entity: user, kind: number, mean: 35, std: 12}
  - {name: city, entity: user, kind: categorical, vocabulary: [oslo, rome]}
  - {name: film, entity: item, kind: categorical, vocabulary: {from: 1, to: 500},
     indices: {unknown: 0, first: 1}}
inputs:                                  # graph input -> its features, column after column
  dense: [user.age]
  ids: [user.city, item.film]
tasks:
  - {name: click, kind: binary, output: logits, column: 0, activation: sigmoid}
examples: rows.parquet                   # or a list of rows; columns user.age, item.film, ...
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from bundle.manifest import ColumnName, ModelName, Task
from bundle.packing import hash_value
from bundle.schema import (
    FIRST_VALUE_INDEX,
    OUT_OF_VOCABULARY_INDEX,
    PADDING_INDEX,
    Feature,
)
from model_export.fusions import FusionDefault

_FEATURE: TypeAdapter[Feature] = TypeAdapter(Feature)
Key = Annotated[str, Field(pattern=r"^(user|context|item)\.[A-Za-z_][A-Za-z0-9_]*$")]
Position = Annotated[int, Field(ge=0, lt=2**31)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Indices(_Strict):
    """Which indices the graph was trained with.

    Attributes:
        padding: behind the end of an id list.
        unknown: a value that is not in the vocabulary.
        first: the first entry of the vocabulary, bucket or hash bucket; the others follow.
    """

    padding: Position = PADDING_INDEX
    unknown: Position = OUT_OF_VOCABULARY_INDEX
    first: Position = FIRST_VALUE_INDEX


class Span(BaseModel):
    """The integers from `from` up to and including `to`, as a vocabulary."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    start: Annotated[int, Field(alias="from")]
    stop: Annotated[int, Field(alias="to")]

    @model_validator(mode="after")
    def _ascending(self) -> Span:
        if self.stop < self.start:
            raise ValueError("`to` must not be less than `from`")
        return self


class SpecFeature(BaseModel):
    """A feature as the bundle's schema has it, but for its vocabulary, and its indices.

    Attributes:
        vocabulary: its values in the order of their indices: a list, a span of integers, or the
            name of a text file with a value on each line.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    vocabulary: Annotated[tuple[str | int, ...], Field(min_length=1)] | Span | str | None = None
    indices: Indices | None = None

    def values(self, directory: Path) -> npt.NDArray[np.uint64] | None:
        """The hashes of the vocabulary; raises OSError when its file cannot be read."""
        match self.vocabulary:
            case None:
                return None
            case Span() as span:
                values: Iterable[str | int] = range(span.start, span.stop + 1)
            case str() as file:
                values = (directory / file).read_text(encoding="utf-8").splitlines()
            case tuple() as listed:
                values = listed
        return np.array([hash_value(value) for value in values], np.uint64)

    def feature(self, vocabulary_size: int | None) -> Feature:
        """The feature of the bundle's schema."""
        fields = dict(self.model_extra or {})
        if vocabulary_size is not None:
            fields["vocabulary_size"] = vocabulary_size
        return _FEATURE.validate_python(fields)


class SpecTask(Task):
    """A task, and which number of the graph it is.

    Attributes:
        output: the graph's output; may be left out when it has one.
        column: of that output; may be left out when it has one.
        activation: what turns the number into a score.
    """

    output: str | None = None
    column: Position | None = None
    activation: Literal["sigmoid"] | None = None

    def served(self) -> Task:
        """The task as the manifest has it."""
        return Task(name=self.name, kind=self.kind, description=self.description)


class SpecSample(_Strict):
    """A Parquet file of users or items with their features, for stores, demos and load tests."""

    file: str
    key: ColumnName
    display: tuple[ColumnName, ...] = ()


class Spec(_Strict):
    """What the YAML file holds.

    Attributes:
        inputs: for each input of the graph its features, in the order of its columns.
        examples: a Parquet file, or rows: a value for each feature by its key, and for each task
            by its name the score that the graph must give, or for none.
        fusion: the formula that the model starts with.
    """

    model: ModelName
    description: str = ""
    features: Annotated[tuple[SpecFeature, ...], Field(min_length=1)]
    inputs: Annotated[dict[str, tuple[Key, ...]], Field(min_length=1)]
    tasks: Annotated[tuple[SpecTask, ...], Field(min_length=1)]
    examples: str | Annotated[tuple[dict[str, Any], ...], Field(min_length=1)]
    samples: dict[Literal["user", "item"], SpecSample] = {}
    fusion: FusionDefault | None = None

    @model_validator(mode="after")
    def _tasks_differ(self) -> Spec:
        names = [task.name for task in self.tasks]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"tasks: declared twice: {', '.join(twice)}")
        return self
