"""The feature schema: what may be declared, and how wrong declarations are named."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from bundle.schema import (
    Bucketised,
    Categorical,
    DenseVector,
    Feature,
    FeatureSchema,
    IdList,
    Number,
    is_float32,
)

read_feature: TypeAdapter[Feature] = TypeAdapter(Feature)


def declared(kind: str, **fields: Any) -> dict[str, Any]:
    return {"name": "f", "entity": "item", "kind": kind, **fields}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (declared("categorical"), "item.f: set exactly one of vocabulary_size, hash_buckets"),
        (
            declared("categorical", vocabulary_size=3, hash_buckets=3),
            "item.f: set exactly one of vocabulary_size",
        ),
        (
            declared("id_list", max_length=2, vocabulary_size=3, shares="item.g"),
            "item.f: set exactly one of vocabulary_size",
        ),
        (declared("categorical", vocabulary_size=0), "vocabulary_size"),
        (declared("categorical", hash_buckets=0), "hash_buckets"),
        (declared("categorical", hash_buckets=2**31 - 2), "hash_buckets"),
        (declared("categorical", vocabulary_size=3, default=None), "default"),
        (declared("id_list", vocabulary_size=3), "max_length"),
        (declared("id_list", vocabulary_size=3, max_length=0), "max_length"),
        (declared("id_list", vocabulary_size=3, max_length=4097), "max_length"),
        (declared("number", std=0.0), "std"),
        (declared("number", std=-1.0), "std"),
        (declared("number", std=1e-39), "std"),  # 1 / std must be a float32
        (declared("number", mean=1e300), "mean"),
        (declared("number", mean=float("nan")), "mean"),
        (declared("number", default=float("inf")), "default"),
        (declared("number", default=3.5e38), "default"),
        (declared("bucketised"), "boundaries"),
        (declared("bucketised", boundaries=[]), "boundaries"),
        (declared("bucketised", boundaries=[1.0, 1.0]), "item.f: boundaries must ascend strictly"),
        (declared("bucketised", boundaries=[2.0, 1.0]), "item.f: boundaries must ascend strictly"),
        (declared("bucketised", boundaries=[1.0, float("nan")]), "boundaries.1"),
        (declared("bucketised", boundaries=[1.0, 1e300]), "boundaries.1"),
        (declared("dense_vector"), "dimension"),
        (declared("dense_vector", dimension=0), "dimension"),
        (
            declared("dense_vector", dimension=3, default=[1.0, 2.0]),
            "item.f: default has 2 numbers, dimension is 3; leave it out for zeros",
        ),
        (declared("number", name="2f"), "name"),
        (declared("number", name="a.b"), "name"),
        (declared("number", name="f" * 129), "name"),
        (declared("number", entity="basket"), "entity"),
        (declared("number", hash_buckets=3), "hash_buckets"),
        (declared("picture"), "picture"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        read_feature.validate_python(fields)
    assert message in str(caught.value)


def test_a_name_may_be_declared_once_in_an_entity() -> None:
    number = Number(name="age", entity="user")
    with pytest.raises(ValidationError, match=r"features declared twice: user\.age"):
        FeatureSchema(features=(number, Number(name="age", entity="item"), number))
    schema = FeatureSchema(features=(number, Number(name="age", entity="item")))
    assert [feature.key for feature in schema.features] == ["user.age", "item.age"]


@pytest.mark.parametrize("named", ["item.nothing", "item.price", "user.recent", "user.history"])
def test_only_a_vocabulary_or_a_hash_can_be_shared(named: str) -> None:
    with pytest.raises(ValidationError) as caught:
        FeatureSchema(
            features=(
                Categorical(name="id", entity="item", vocabulary_size=5),
                Number(name="price", entity="item"),
                IdList(name="recent", entity="user", max_length=2, shares="item.id"),
                IdList(name="history", entity="user", max_length=2, shares=named),
            )
        )
    assert f"user.history: shares {named!r}, which is not a feature with" in str(caught.value)


def test_shared_features_use_the_table_of_their_owner() -> None:
    item_id = Categorical(name="id", entity="item", vocabulary_size=5)
    tag = IdList(name="tag", entity="item", max_length=2, hash_buckets=7)
    history = IdList(name="history", entity="user", max_length=3, shares="item.id")
    tags = IdList(name="tags", entity="user", max_length=3, shares="item.tag")
    schema = FeatureSchema(features=(history, tags, item_id, tag))
    assert schema.owner(history) == item_id
    assert schema.owner(item_id) == item_id
    assert [schema.table_rows(feature) for feature in (history, item_id)] == [7, 7]
    assert [schema.table_rows(feature) for feature in (tags, tag)] == [9, 9]
    assert list(schema.vocabulary_owners()) == [item_id]


def test_table_rows_of_the_other_kinds() -> None:
    bucketised = Bucketised(name="age", entity="user", boundaries=(1.0, 2.0, 3.0))
    number = Number(name="n", entity="user")
    vector = DenseVector(name="v", entity="user", dimension=2)
    schema = FeatureSchema(features=(bucketised, number, vector))
    assert schema.table_rows(bucketised) == 2 + 4
    for feature in (number, vector):
        with pytest.raises(TypeError, match=rf"{feature.key}: .* has no embedding table"):
            schema.table_rows(feature)


def test_features_of_entities_come_in_the_order_asked_for() -> None:
    names = (("a", "item"), ("b", "context"), ("c", "user"), ("d", "item"))
    schema = FeatureSchema.model_validate(
        {"features": [{"name": n, "entity": e, "kind": "number"} for n, e in names]}
    )
    assert [f.name for f in schema.of("user", "context")] == ["c", "b"]
    assert [f.name for f in schema.of("item")] == ["a", "d"]


def test_a_schema_survives_json() -> None:
    schema = FeatureSchema(
        features=(
            Categorical(name="id", entity="item", vocabulary_size=5, default="x"),
            IdList(name="h", entity="user", max_length=3, shares="item.id", default=("1", "2")),
            Number(name="n", entity="context", mean=0.1, std=0.3),
            Bucketised(name="b", entity="item", boundaries=(0.1, 0.2)),
            DenseVector(name="v", entity="user", dimension=2, default=(1.0, 2.0)),
        )
    )
    assert FeatureSchema.model_validate_json(schema.model_dump_json()) == schema


@pytest.mark.parametrize(
    ("value", "fits"),
    [(0.0, True), (3.4e38, True), (-3.4e38, True), (3.41e38, False), (-1e39, False)],
)
def test_is_float32(value: float, fits: bool) -> None:
    assert is_float32(value) is fits
    assert not is_float32(float("nan"))
    assert not is_float32(float("-inf"))
