"""Random feature schemas, vocabularies and raw values, for the tests of rows and encoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from bundle.packing import hash_value
from bundle.schema import (
    ENTITIES,
    Bucketised,
    Categorical,
    DenseVector,
    Entity,
    Feature,
    FeatureSchema,
    IdList,
    Number,
)
from bundle.vocabulary import Vocabularies

LARGEST = float(np.float32(3.4e38))

Columns = dict[str, list[Any]]

words = st.one_of(st.text(max_size=6), st.integers(-5, 40).map(str))
ids = st.one_of(words, st.integers(-5, 40), st.integers(-(10**30), 10**30), st.booleans())
float32s = st.floats(-LARGEST, LARGEST, width=32)
small_floats = st.floats(-1e6, 1e6, width=32)
numbers = st.one_of(
    small_floats,
    float32s,
    st.integers(-100, 100),
    st.integers(-(10**38), 10**38),
    st.integers(-100, 100).map(np.int32),
    small_floats.map(np.float32),
)


@dataclass(frozen=True)
class Model:
    """A schema, and the raw values of each vocabulary, in order."""

    schema: FeatureSchema
    values: dict[str, list[str]]

    @property
    def vocabularies(self) -> Vocabularies:
        """The vocabularies as a bundle keeps them."""
        return {
            key: np.array([hash_value(value) for value in values], np.uint64)
            for key, values in self.values.items()
        }


@st.composite
def models(draw: st.DrawFn, min_features: int = 0, max_features: int = 6) -> Model:
    """Any schema, with vocabularies; context, or any other entity, may be without a feature."""
    features: list[Feature] = []
    values: dict[str, list[str]] = {}
    owners: list[str] = []
    for position in range(draw(st.integers(min_features, max_features))):
        entity: Entity = draw(st.sampled_from(ENTITIES))
        name = f"{draw(st.sampled_from('abc'))}{position}"
        kind = draw(st.sampled_from(("categorical", "id_list", "number", "bucketised", "dense")))
        if kind == "number":
            features.append(
                Number(
                    name=name,
                    entity=entity,
                    default=draw(small_floats),
                    mean=draw(small_floats),
                    std=draw(st.floats(1e-3, 1e3)),
                )
            )
        elif kind == "bucketised":
            boundaries = draw(st.lists(small_floats, min_size=1, max_size=5, unique=True))
            features.append(
                Bucketised(
                    name=name,
                    entity=entity,
                    default=draw(small_floats),
                    boundaries=tuple(sorted(boundaries)),
                )
            )
        elif kind == "dense":
            dimension = draw(st.integers(1, 4))
            default = draw(
                st.just(()) | st.tuples(*[small_floats] * dimension)  # none means zeros
            )
            features.append(
                DenseVector(name=name, entity=entity, dimension=dimension, default=default)
            )
        else:
            source: dict[str, Any] = {}
            choice = draw(st.sampled_from(("vocabulary", "hash", "shares")))
            if choice == "shares" and owners:
                source["shares"] = draw(st.sampled_from(owners))
            elif choice == "hash":
                source["hash_buckets"] = draw(st.one_of(st.integers(1, 50), st.just(2**31 - 3)))
                owners.append(f"{entity}.{name}")
            else:
                known = draw(st.lists(words, min_size=1, max_size=12, unique=True))
                source["vocabulary_size"] = len(known)
                values[f"{entity}.{name}"] = known
                owners.append(f"{entity}.{name}")
            if kind == "categorical":
                features.append(
                    Categorical(name=name, entity=entity, default=draw(words), **source)
                )
            else:
                features.append(
                    IdList(
                        name=name,
                        entity=entity,
                        max_length=draw(st.integers(1, 4)),
                        default=tuple(draw(st.lists(words, max_size=6))),
                        **source,
                    )
                )
    order = draw(st.permutations(features))
    return Model(FeatureSchema(features=tuple(order)), values)


def raw_values(model: Model, feature: Feature) -> st.SearchStrategy[Any]:
    """A raw value of a feature as a client may send it, or None."""
    match feature:
        case Categorical() | IdList():
            known = model.values.get(model.schema.owner(feature).key)
            one = ids if known is None else st.one_of(st.sampled_from(known), ids)
            if isinstance(feature, Categorical):
                return st.none() | one
            return st.none() | st.lists(one, max_size=feature.max_length + 3)
        case Number():
            return st.none() | numbers
        case Bucketised():
            return st.none() | st.one_of(numbers, st.sampled_from(feature.boundaries))
        case DenseVector():
            return st.none() | st.lists(
                numbers, min_size=feature.dimension, max_size=feature.dimension
            )


@st.composite
def raw_columns(draw: st.DrawFn, model: Model, entity: Entity, rows: int) -> Columns:
    """Raw values of all or some features of an entity, column by column."""
    columns: Columns = {}
    for feature in model.schema.of(entity):
        if draw(st.integers(0, 9)) > 0:
            values = st.lists(raw_values(model, feature), min_size=rows, max_size=rows)
            columns[feature.name] = draw(values)
    return columns
