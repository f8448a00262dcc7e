"""The feature schema: which raw values a model reads, of which entity and kind.

A feature belongs to one entity (user, item or context) and has one of five kinds. Features that
become an embedding index share one index layout:

    0                   padding, and nothing else (id lists shorter than their maximum)
    1                   out of vocabulary: values never seen in training
    2 .. table_rows-1   vocabulary entries, hash buckets or numeric buckets
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Entity = Literal["user", "item", "context"]
ENTITIES: tuple[Entity, ...] = ("user", "item", "context")
PADDING_INDEX = 0
OUT_OF_VOCABULARY_INDEX = 1
FIRST_VALUE_INDEX = 2

Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=128)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Float32 = Annotated[Finite, Field(ge=-3.4e38, le=3.4e38)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Feature(_Strict):
    """What all features have.

    `required` forbids the default: a request without the user's or context's value is refused, an
    item without it gets no score. It is left out of a manifest where it is false.
    """

    name: Name
    entity: Entity
    required: Annotated[bool, Field(exclude_if=lambda required: not required)] = False

    @property
    def key(self) -> str:
        """The feature's name qualified by its entity, e.g. `item.genres`; unique in a schema."""
        return f"{self.entity}.{self.name}"


class _Indexed(_Feature):
    """A feature whose values become indices: by vocabulary, by hash, or as another one does.

    Exactly one of `vocabulary_size`, `hash_buckets` and `shares` is set. `shares` names the key of
    the feature whose vocabulary and embedding are used, e.g. a history shares `item.item_id`.
    """

    vocabulary_size: Annotated[int, Field(ge=1)] | None = None
    hash_buckets: Annotated[int, Field(ge=1, le=2**31 - 3)] | None = None
    shares: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [self.vocabulary_size, self.hash_buckets, self.shares]
        if sum(source is not None for source in given) != 1:
            raise ValueError(
                f"{self.key}: set exactly one of vocabulary_size, hash_buckets and shares"
            )
        return self


class Categorical(_Indexed):
    """One string or integer out of a vocabulary or hashed into buckets."""

    kind: Literal["categorical"] = "categorical"
    default: str = ""


class IdList(_Indexed):
    """A list of ids, most recent first; only the first `max_length` are read."""

    kind: Literal["id_list"] = "id_list"
    max_length: Annotated[int, Field(ge=1, le=4096)]
    default: tuple[str, ...] = ()


class Number(_Feature):
    """A finite number, standardised to (value - mean) / std."""

    kind: Literal["number"] = "number"
    default: Float32 = 0.0
    mean: Float32 = 0.0
    std: Annotated[Float32, Field(ge=1e-38)] = 1.0


class Bucketised(_Feature):
    """A finite number turned into the index of its bucket: `boundaries[i-1] <= value < ...[i]`."""

    kind: Literal["bucketised"] = "bucketised"
    default: Float32 = 0.0
    boundaries: Annotated[tuple[Float32, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        pairs = zip(self.boundaries, self.boundaries[1:], strict=False)
        if any(low >= high for low, high in pairs):
            raise ValueError(f"{self.key}: boundaries must ascend strictly")
        return self


class DenseVector(_Feature):
    """A vector of `dimension` finite numbers, used as it comes (e.g. a content embedding)."""

    kind: Literal["dense_vector"] = "dense_vector"
    dimension: Annotated[int, Field(ge=1, le=65536)]
    default: tuple[Float32, ...] = ()

    @model_validator(mode="after")
    def _default_fits(self) -> Self:
        if self.default and len(self.default) != self.dimension:
            raise ValueError(
                f"{self.key}: default has {len(self.default)} numbers, dimension is "
                f"{self.dimension}; leave it out for zeros"
            )
        return self


Feature = Annotated[
    Categorical | IdList | Number | Bucketised | DenseVector, Field(discriminator="kind")
]


class FeatureSchema(_Strict):
    """Every feature a model reads, in the order of its input columns.

    Raises:
        pydantic.ValidationError: a name twice in an entity, or `shares` naming no vocabulary.
    """

    features: tuple[Feature, ...]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        twice = [key for key, count in Counter(f.key for f in self.features).items() if count > 1]
        if twice:
            raise ValueError(f"features declared twice: {', '.join(twice)}")
        for feature in self.features:
            if isinstance(feature, _Indexed) and feature.shares is not None:
                owner = self._by_key().get(feature.shares)
                if not isinstance(owner, _Indexed) or owner.shares is not None:
                    raise ValueError(
                        f"{feature.key}: shares {feature.shares!r}, which is not a feature with a "
                        "vocabulary or hash of its own"
                    )
        return self

    def _by_key(self) -> dict[str, Feature]:
        return {feature.key: feature for feature in self.features}

    def of(self, *entities: Entity) -> tuple[Feature, ...]:
        """The features of these entities: entity by entity, each in declared order."""
        return tuple(f for entity in entities for f in self.features if f.entity == entity)

    def kinds(self) -> dict[str, str]:
        """The kind of each feature, by its key."""
        return {feature.key: feature.kind for feature in self.features}

    def owner(self, feature: Feature) -> Feature:
        """The feature whose vocabulary and embedding table `feature` uses; itself, mostly."""
        if isinstance(feature, _Indexed) and feature.shares is not None:
            return self._by_key()[feature.shares]
        return feature

    def table_rows(self, feature: Feature) -> int:
        """Rows of the embedding table `feature` indexes, padding and out-of-vocabulary included.

        Raises:
            TypeError: the feature's kind has no table.
        """
        owner = self.owner(feature)
        if isinstance(owner, Categorical | IdList):
            values = owner.vocabulary_size or owner.hash_buckets
            assert values is not None  # by _one_source
            return FIRST_VALUE_INDEX + values
        if isinstance(owner, Bucketised):
            return FIRST_VALUE_INDEX + len(owner.boundaries) + 1
        raise TypeError(f"{feature.key}: a {feature.kind} has no embedding table")

    def vocabulary_owners(self) -> Iterable[Categorical | IdList]:
        """Features that need an entry in the bundle's vocabularies."""
        for feature in self.features:
            if isinstance(feature, Categorical | IdList) and feature.vocabulary_size is not None:
                yield feature


def is_float32(value: float) -> bool:
    """Whether `value` is finite and stays so as float32."""
    return math.isfinite(value) and abs(value) <= 3.4e38
