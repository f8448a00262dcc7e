"""Fitting: declarations + the training part -> the feature schema and its vocabularies.

Only the training part is looked at, each value weighted by the candidate rows that use it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from bundle.encoding import Encoder
from bundle.packing import hash_value
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
from model_export.data.impressions import Impressions
from model_export.errors import DataInvalid


@dataclass(frozen=True)
class FittedFeatures:
    """The schema, and the hashes of the values of each vocabulary."""

    schema: FeatureSchema
    vocabularies: Vocabularies

    def encoder(self) -> Encoder:
        """The encoder that training and serving use."""
        return Encoder(self.schema, self.vocabularies)


def fit(declarations: Iterable[FeatureDeclaration], train: Impressions) -> FittedFeatures:
    """Fit the declared features on the training part.

    Raises:
        DataInvalid: a declared column is absent, has no usable value, or holds a wrong one.
    """
    vocabularies: dict[str, npt.NDArray[np.uint64]] = {}
    features: list[Feature] = []
    for declaration in declarations:
        values = train.column(declaration.entity, declaration.name)
        counts = train.row_counts(declaration.entity)
        try:
            if isinstance(declaration, CategoricalDeclaration | IdListDeclaration):
                if declaration.vocabulary == "fit":
                    vocabularies[declaration.key] = _vocabulary(declaration, values, counts)
                size = len(vocabularies.get(declaration.key, ()))
                features.append(_indexed(declaration, size))
            elif isinstance(declaration, DenseVectorDeclaration):
                features.append(DenseVector(**declaration.model_dump()))
            else:
                features.append(_numeric(declaration, values, counts))
        except (TypeError, ValueError) as error:
            raise DataInvalid(f"features: {declaration.key}: {error}") from error
    try:
        schema = FeatureSchema(features=tuple(features))
    except ValidationError as error:
        raise DataInvalid(f"features: {error.errors()[0]['msg']}") from error
    return FittedFeatures(schema, vocabularies)


def _vocabulary(
    declaration: CategoricalDeclaration | IdListDeclaration,
    values: Sequence[Any],
    counts: npt.NDArray[np.int64],
) -> npt.NDArray[np.uint64]:
    rows: Counter[int] = Counter()
    for value, count in _used(values, counts):
        ids = value if isinstance(declaration, IdListDeclaration) else (value,)
        for hashed in {hash_value(one) for one in ids}:
            rows[hashed] += count
    # Ties are ordered by hash, so that the indices do not depend on the order of the data.
    frequent = [(-n, hashed) for hashed, n in rows.items() if n >= declaration.min_count]
    if not frequent:
        raise ValueError(f"no value is in {declaration.min_count} training rows or more")
    return np.array([hashed for _, hashed in sorted(frequent)], np.uint64)


def _indexed(declaration: CategoricalDeclaration | IdListDeclaration, size: int) -> Feature:
    fields = declaration.model_dump(exclude={"vocabulary", "min_count"})
    kind = Categorical if isinstance(declaration, CategoricalDeclaration) else IdList
    return kind(**fields, vocabulary_size=size or None)


def _numeric(
    declaration: NumberDeclaration | BucketisedDeclaration,
    values: Sequence[Any],
    counts: npt.NDArray[np.int64],
) -> Feature:
    used = list(_used(values, counts))
    if not used:
        raise ValueError("no value in the training rows")
    numbers = np.array([value for value, _ in used], np.float64)
    weights = np.array([count for _, count in used], np.float64)
    if not np.isfinite(numbers).all():
        raise ValueError("NaN or infinity in the training rows")
    name, entity, default = declaration.name, declaration.entity, declaration.default
    if isinstance(declaration, NumberDeclaration):
        mean = float(np.average(numbers, weights=weights))
        deviation = float(np.sqrt(np.average((numbers - mean) ** 2, weights=weights)))
        return Number(
            name=name,
            entity=entity,
            default=mean if default is None else default,
            mean=mean,
            std=deviation or 1.0,  # a constant column standardises to 0
        )
    if default is None:
        (default,) = _quantiles(numbers, weights, [0.5])
    boundaries = declaration.boundaries
    if boundaries is None:
        inner = np.linspace(0.0, 1.0, (declaration.quantiles or 0) + 1)[1:-1]
        boundaries = tuple(_quantiles(numbers, weights, inner.tolist()))
    return Bucketised(name=name, entity=entity, default=default, boundaries=boundaries)


def _quantiles(
    numbers: npt.NDArray[np.float64], weights: npt.NDArray[np.float64], at: list[float]
) -> list[float]:
    found = np.quantile(numbers, at, weights=weights, method="inverted_cdf")
    return [float(number) for number in np.unique(found)]


def _used(values: Sequence[Any], counts: npt.NDArray[np.int64]) -> Iterator[tuple[Any, int]]:
    """Each present value that a training row uses, with the number of those rows."""
    for value, count in zip(values, counts.tolist(), strict=True):
        if count and value is not None:
            yield value, count
