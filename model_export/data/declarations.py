"""Feature declarations: what the configuration says of a feature before the data is seen.

A declaration becomes a `bundle.schema` feature once vocabulary, mean, deviation and quantiles have
been fitted on the training part (`model_export.data.fit`).
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bundle.schema import Entity, Finite, Float32, Name


class _Declaration(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    entity: Entity
    required: bool = False

    @property
    def key(self) -> str:
        """The feature's name qualified by its entity."""
        return f"{self.entity}.{self.name}"


class _Indexed(_Declaration):
    """Exactly one of `vocabulary: fit`, `hash_buckets` and `shares` says what indexes the values.

    `min_count` belongs to `vocabulary: fit`: values seen in fewer training rows are left to the
    out-of-vocabulary row, which so gets trained.
    """

    vocabulary: Literal["fit"] | None = None
    min_count: Annotated[int, Field(ge=1)] = 1
    hash_buckets: Annotated[int, Field(ge=1, le=2**31 - 3)] | None = None
    shares: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        sources = (self.vocabulary, self.hash_buckets, self.shares)
        if sum(source is not None for source in sources) != 1:
            raise ValueError("set exactly one of vocabulary, hash_buckets and shares")
        if self.min_count > 1 and self.vocabulary is None:
            raise ValueError("min_count needs vocabulary: fit")
        return self


class CategoricalDeclaration(_Indexed):
    """One string or integer."""

    kind: Literal["categorical"]
    default: str = ""


class IdListDeclaration(_Indexed):
    """A list of ids, most recent first."""

    kind: Literal["id_list"]
    max_length: Annotated[int, Field(ge=1, le=4096)]
    default: tuple[str, ...] = ()


class NumberDeclaration(_Declaration):
    """A number, standardised by its mean and deviation in training.

    `default` stands for an absent value; the training mean when left out.
    """

    kind: Literal["number"]
    default: Float32 | None = None


class BucketisedDeclaration(_Declaration):
    """A number turned into its bucket, by given `boundaries` or by as many training `quantiles`.

    `default` stands for an absent value; the training median when left out.
    """

    kind: Literal["bucketised"]
    boundaries: Annotated[tuple[Finite, ...], Field(min_length=1)] | None = None
    quantiles: Annotated[int, Field(ge=2)] | None = None
    default: Float32 | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.boundaries is None) == (self.quantiles is None):
            raise ValueError("set exactly one of boundaries and quantiles")
        return self


class DenseVectorDeclaration(_Declaration):
    """A vector of numbers, used as it comes."""

    kind: Literal["dense_vector"]
    dimension: Annotated[int, Field(ge=1)]
    default: tuple[Float32, ...] = ()


FeatureDeclaration = Annotated[
    CategoricalDeclaration
    | IdListDeclaration
    | NumberDeclaration
    | BucketisedDeclaration
    | DenseVectorDeclaration,
    Field(discriminator="kind"),
]
