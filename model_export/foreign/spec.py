"""The specification of a graph from elsewhere: what its inputs are fed with, what its outputs mean.

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

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from bundle.manifest import ModelName, Task
from bundle.packing import hash_value
from bundle.schema import (
    FIRST_VALUE_INDEX,
    OUT_OF_VOCABULARY_INDEX,
    PADDING_INDEX,
    Feature,
    FeatureSchema,
    Name,
)
from model_export.errors import SpecInvalid
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
    key: Name
    display: tuple[Name, ...] = ()


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


class Specification:
    """A specification, read, with the features that it declares.

    Attributes:
        path: the file; paths in it are relative to its directory.
        spec: what it holds.
        features: the bundle's schema.
        vocabularies: hashes of the values, by feature key.
        indices: feature key -> the graph's indices; of those that share a vocabulary, its owner's.
    """

    def __init__(self, path: Path) -> None:
        """Read a specification.

        Raises:
            SpecInvalid: not readable, not YAML, or a field is wrong; names it.
        """
        self.path = path
        self.spec = _parse(path)
        self.vocabularies: dict[str, npt.NDArray[np.uint64]] = {}
        features: list[Feature] = []
        own: dict[str, Indices] = {}
        for position, declared in enumerate(self.spec.features):
            name = (declared.model_extra or {}).get("name")
            try:
                values = declared.values(path.parent)
                feature = declared.feature(None if values is None else len(values))
            except OSError as error:
                place = f"features.{position} ({name}).vocabulary"
                raise SpecInvalid(f"{path}: {place}: {error.strerror}: {error.filename}") from error
            except ValidationError as error:
                raise SpecInvalid(_problems(path, error, f"features.{position} ({name})")) from None
            features.append(feature)
            if values is not None:
                self.vocabularies[feature.key] = values
            if declared.indices is not None:
                own[feature.key] = declared.indices
        try:
            self.features = FeatureSchema(features=tuple(features))
        except ValidationError as error:
            raise SpecInvalid(_problems(path, error, "features")) from None
        self.indices = {
            feature.key: own.get(feature.key)
            or own.get(self.features.owner(feature).key, Indices())
            for feature in self.features.features
        }
        self._check_inputs()

    def _check_inputs(self) -> None:
        known = {feature.key for feature in self.features.features}
        fed: set[str] = set()
        for name, keys in self.spec.inputs.items():
            for key in keys:
                if key not in known:
                    raise self.error(f"inputs.{name}", f"no feature {key}{nearest(key, known)}")
            fed.update(keys)
        if idle := sorted(known - fed):
            raise self.error("inputs", f"{', '.join(idle)} feeds none of them; leave it out")

    def error(self, field: str, problem: str) -> SpecInvalid:
        """An error about one field."""
        return SpecInvalid(f"{self.path}: {field}: {problem}")


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean ...?` where something is near, and what there is."""
    choices = sorted(known)
    near = difflib.get_close_matches(name, choices, 1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{hint} (there is {', '.join(choices) or 'none'})"


def _parse(path: Path) -> Spec:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecInvalid(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecInvalid(f"{path}: not YAML: {error}") from error
    if not isinstance(content, Mapping):
        raise SpecInvalid(f"{path}: expected a mapping of fields")
    if isinstance(inputs := content.get("inputs"), dict):  # one feature need not be a list
        lists = {name: [keys] if isinstance(keys, str) else keys for name, keys in inputs.items()}
        content = {**content, "inputs": lists}
    try:
        return Spec.model_validate(content)
    except ValidationError as error:
        raise SpecInvalid(_problems(path, error, "")) from None


def _problems(path: Path, error: ValidationError, field: str) -> str:
    found: dict[str, str] = {}
    for each in error.errors(include_url=False):
        parts = [field] if field else []
        parts += [str(part) for part in each["loc"]]
        found.setdefault(".".join(parts), each["msg"].removeprefix("Value error, "))
    return f"{path}: " + "; ".join(f"{where}: {message}" for where, message in found.items())
