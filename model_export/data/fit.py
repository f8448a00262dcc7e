"""Fitting: declarations + the training part -> the feature schema and its vocabularies.

Only the training part is looked at, each value weighted by the candidate rows that use it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from bundle.encoding import Encoder
from bundle.schema import (
    Bucketised,
    Categorical,
    DenseVector,
    Feature,
    FeatureSchema,
    IdList,
    Number,
)
from bundle.vocabulary import Vocabularies
from model_export.data.declarations import (
    BucketisedDeclaration,
    CategoricalDeclaration,
    DenseVectorDeclaration,
    FeatureDeclaration,
    IdListDeclaration,
    NumberDeclaration,
)
from model_export.data.impressions import Part
from model_export.data.statistics import NothingFit, NumberFit, VocabularyFit
from model_export.errors import DataInvalid


@dataclass(frozen=True)
class FittedFeatures:
    """The schema, and the hashes of the values of each vocabulary."""

    schema: FeatureSchema
    vocabularies: Vocabularies

    def encoder(self) -> Encoder:
        """The encoder that training and serving use."""
        return Encoder(self.schema, self.vocabularies)


def fit(declarations: Iterable[FeatureDeclaration], train: Part) -> FittedFeatures:
    """Fit the declared features on the training part, in one pass over its chunks.

    Raises:
        DataInvalid: a declared column is absent, has no usable value, or holds a wrong one.
    """
    fits = [(declaration, _fit_of(declaration)) for declaration in declarations]
    for chunk in train.chunks():
        for declaration, fitting in fits:
            values = chunk.column(declaration.entity, declaration.name)
            with _named(declaration, train.origin):
                fitting.add(values, chunk.row_counts(declaration.entity))
    vocabularies: dict[str, npt.NDArray[np.uint64]] = {}
    features: list[Feature] = []
    for declaration, fitting in fits:
        with _named(declaration, train.origin):
            if isinstance(fitting, VocabularyFit):
                vocabularies[declaration.key] = fitting.hashes()
            size = len(vocabularies.get(declaration.key, ()))
            features.append(_fitted(declaration, fitting, size))
    try:
        schema = FeatureSchema(features=tuple(features))
    except ValidationError as error:
        said = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise DataInvalid(f"features: {said}") from error
    return FittedFeatures(schema, vocabularies)


def _fit_of(declaration: FeatureDeclaration) -> VocabularyFit | NumberFit | NothingFit:
    if isinstance(declaration, CategoricalDeclaration | IdListDeclaration):
        if declaration.vocabulary != "fit":
            return NothingFit()
        is_list = isinstance(declaration, IdListDeclaration)
        return VocabularyFit(is_list, declaration.min_count)
    if isinstance(declaration, DenseVectorDeclaration):
        return NothingFit()
    return NumberFit(sampled=isinstance(declaration, BucketisedDeclaration))


def _fitted(
    declaration: FeatureDeclaration,
    fitting: VocabularyFit | NumberFit | NothingFit,
    size: int,
) -> Feature:
    if isinstance(fitting, NumberFit):
        assert isinstance(declaration, NumberDeclaration | BucketisedDeclaration)  # by _fit_of
        return _numeric(declaration, fitting)
    if isinstance(declaration, CategoricalDeclaration | IdListDeclaration):
        return _indexed(declaration, size)
    return DenseVector(**declaration.model_dump())


@contextmanager
def _named(declaration: FeatureDeclaration, origin: str) -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError) as error:
        raise DataInvalid(f"{origin}: features: {declaration.key}: {error}") from error


def _indexed(declaration: CategoricalDeclaration | IdListDeclaration, size: int) -> Feature:
    fields = declaration.model_dump(exclude={"vocabulary", "min_count"})
    kind = Categorical if isinstance(declaration, CategoricalDeclaration) else IdList
    return kind(**fields, vocabulary_size=size or None)


def _numeric(declaration: NumberDeclaration | BucketisedDeclaration, fitting: NumberFit) -> Feature:
    name, entity, default = declaration.name, declaration.entity, declaration.default
    mean, deviation = fitting.mean_and_deviation()
    if isinstance(declaration, NumberDeclaration):
        return Number(
            name=name,
            entity=entity,
            default=mean if default is None else default,
            mean=mean,
            std=deviation or 1.0,  # a constant column standardises to 0
        )
    if default is None:
        (default,) = fitting.quantiles([0.5])
    boundaries = declaration.boundaries
    if boundaries is None:
        inner = np.linspace(0.0, 1.0, (declaration.quantiles or 0) + 1)[1:-1]
        boundaries = tuple(fitting.quantiles(inner.tolist()))
    return Bucketised(name=name, entity=entity, default=default, boundaries=boundaries)
