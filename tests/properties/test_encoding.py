"""Encoding: a plain Python encoder, written from the schema's documentation alone, agrees."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundle.encoding import SIDE_ENTITIES, Encoded, Encoder, Side, side_layout
from bundle.schema import (
    Bucketised,
    Categorical,
    DenseVector,
    Entity,
    Feature,
    FeatureSchema,
    IdList,
    Number,
)
from tests.unit.bundle.strategies import Columns, Model, models, raw_columns

slow = settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow])
SIDES: tuple[Side, ...] = ("user", "item")


@st.composite
def cases(
    draw: st.DrawFn, min_features: int = 0
) -> tuple[Model, Encoder, int, dict[Entity, Columns]]:
    """A model, its encoder, a number of rows and their raw values."""
    model = draw(models(min_features))
    count = draw(st.integers(0, 4))
    columns: dict[Entity, Columns] = {
        entity: draw(raw_columns(model, entity, count)) for entity in ("user", "context", "item")
    }
    return model, Encoder(model.schema, model.vocabularies), count, columns


def encode(encoder: Encoder, side: Side, columns: dict[Entity, Columns], count: int) -> Encoded:
    rows = [encoder.layouts[each].pack(columns[each], count) for each in SIDE_ENTITIES[side]]
    return encoder.item(rows[0]) if side == "item" else encoder.user(rows[0], rows[1])


def float32(value: float) -> float:
    (rounded,) = struct.unpack("<f", struct.pack("<f", float(value)))
    assert isinstance(rounded, float)
    return rounded


def text_of(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def reference_id(model: Model, feature: Feature, value: object) -> int:
    """0 padding, 1 unknown, then vocabulary positions or buckets."""
    owner = model.schema.owner(feature)
    assert isinstance(owner, Categorical | IdList)
    text = text_of(value)
    if owner.hash_buckets is None:
        known = model.values[owner.key]
        return known.index(text) + 2 if text in known else 1
    hashed: int = xxhash.xxh3_64_intdigest(text.encode())
    assert hashed > 1
    return hashed % owner.hash_buckets + 2


def reference_ids(model: Model, feature: Feature, value: Any) -> list[int]:
    if isinstance(feature, Categorical):
        return [reference_id(model, feature, feature.default if value is None else value)]
    assert isinstance(feature, IdList)
    values: Sequence[object] = feature.default if value is None else value
    found = [reference_id(model, feature, each) for each in values[: feature.max_length]]
    return found + [0] * (feature.max_length - len(found))


def reference_bucket(feature: Bucketised, value: Any) -> int:
    number = float32(feature.default if value is None else value)
    return 2 + sum(float32(boundary) <= number for boundary in feature.boundaries)


def reference_numbers(feature: Number | DenseVector, value: Any) -> list[float]:
    if isinstance(feature, Number):
        number = float32(feature.default if value is None else value)
        return [(number - feature.mean) / feature.std]
    if value is None:
        return list(feature.default) or [0.0] * feature.dimension
    return [float32(each) for each in value]


@slow
@given(cases())
def test_the_reference_agrees(case: tuple[Model, Encoder, int, dict[Entity, Columns]]) -> None:
    model, encoder, count, columns = case
    for side in SIDES:
        encoded = encode(encoder, side, columns, count)
        assert encoded.ids.dtype == np.int32
        assert encoded.numbers.dtype == np.float32
        for row in range(count):
            ids: list[int] = []
            numbers: list[float] = []
            sizes: list[float] = []  # what a number's rounding is measured against
            features = [
                (feature, columns[entity].get(feature.name, [None] * count)[row])
                for entity in SIDE_ENTITIES[side]
                for feature in model.schema.of(entity)
            ]
            for feature, value in features:
                if isinstance(feature, Categorical | IdList):
                    ids += reference_ids(model, feature, value)
            for feature, value in features:
                if isinstance(feature, Bucketised):
                    ids.append(reference_bucket(feature, value))
                elif isinstance(feature, Number | DenseVector):
                    found = reference_numbers(feature, value)
                    numbers += found
                    offset = abs(feature.mean) / feature.std if isinstance(feature, Number) else 0.0
                    sizes += [abs(number) + offset for number in found]
            assert encoded.ids[row].tolist() == ids
            for number, expected, size in zip(
                encoded.numbers[row].tolist(), numbers, sizes, strict=True
            ):
                if abs(expected) > 3.4e38:
                    assert abs(number) > 3.3e38
                else:
                    assert number == pytest.approx(expected, abs=1e-6 * size + 1e-37)


@slow
@given(cases(min_features=1))
def test_every_id_is_a_row_of_its_table(
    case: tuple[Model, Encoder, int, dict[Entity, Columns]],
) -> None:
    model, encoder, count, columns = case
    for side in SIDES:
        encoded = encode(encoder, side, columns, count)
        layout = side_layout(model.schema, side)
        assert encoded.ids.shape == (count, layout.id_width)
        assert encoded.numbers.shape == (count, layout.number_width)
        covered = [
            column
            for each in layout.id_columns
            for column in range(each.start, each.start + each.width)
        ]
        assert covered == list(range(layout.id_width))
        for each in layout.id_columns:
            assert each.table == model.schema.owner(each.feature).key
            found = encoded.ids[:, each.start : each.start + each.width]
            assert (found < model.schema.table_rows(each.feature)).all()
            assert (found >= (0 if each.pooled else 1)).all()
            if each.pooled:  # padding stands at the end alone
                assert (np.diff((found == 0).astype(int), axis=1) >= 0).all()


@slow
@given(cases(min_features=1), st.data())
def test_rows_do_not_know_each_other(
    case: tuple[Model, Encoder, int, dict[Entity, Columns]], data: st.DataObject
) -> None:
    _, encoder, count, columns = case
    picked = data.draw(st.lists(st.integers(0, count - 1), max_size=5) if count else st.just([]))
    for side in SIDES:
        encoded = encode(encoder, side, columns, count)
        some: dict[Entity, Columns] = {
            entity: {name: [column[row] for row in picked] for name, column in values.items()}
            for entity, values in columns.items()
        }
        again = encode(encoder, side, some, len(picked))
        np.testing.assert_array_equal(again.ids, encoded.ids[picked])
        np.testing.assert_array_equal(again.numbers, encoded.numbers[picked])


@slow
@given(cases())
def test_stored_rows_encode_as_fresh_ones(
    case: tuple[Model, Encoder, int, dict[Entity, Columns]],
) -> None:
    _, encoder, count, columns = case
    rows = {
        entity: layout.pack(columns[entity], count) for entity, layout in encoder.layouts.items()
    }
    stored = {
        entity: layout.decode(
            [row.tobytes() for row in layout.seal(rows[entity].copy(), 1_700_000_000_000)]
        ).rows
        for entity, layout in encoder.layouts.items()
    }
    for fresh, read in (
        (
            encoder.user(rows["user"], rows["context"]),
            encoder.user(stored["user"], stored["context"]),
        ),
        (encoder.item(rows["item"]), encoder.item(stored["item"])),
    ):
        np.testing.assert_array_equal(fresh.ids, read.ids)
        np.testing.assert_array_equal(fresh.numbers, read.numbers)


@slow
@given(cases())
def test_taking_and_concatenating_rows(
    case: tuple[Model, Encoder, int, dict[Entity, Columns]],
) -> None:
    _, encoder, count, columns = case
    whole = encode(encoder, "item", columns, count)
    parts = [whole.take(slice(0, count // 2)), whole.take(np.arange(count // 2, count))]
    joined = Encoded.concatenate(parts)
    assert [len(part) for part in parts] == [count // 2, count - count // 2]
    np.testing.assert_array_equal(joined.ids, whole.ids)
    np.testing.assert_array_equal(joined.numbers, whole.numbers)


@slow
@given(st.lists(st.text(max_size=4), min_size=2, max_size=8, unique=True), st.integers(0, 6))
def test_vocabularies_that_share_values_do_not_mix(values: list[str], offset: int) -> None:
    """Two features with the same values in another order: each finds its own index."""
    turned = values[offset % len(values) :] + values[: offset % len(values)]
    names = ("a", "b")
    schema = FeatureSchema(
        features=tuple(
            Categorical(name=name, entity="item", vocabulary_size=len(values)) for name in names
        )
    )
    model = Model(schema, {"item.a": values, "item.b": turned})
    encoder = Encoder(schema, model.vocabularies)
    rows = encoder.layouts["item"].pack({"a": values, "b": values}, len(values))
    expected = [[values.index(value) + 2, turned.index(value) + 2] for value in values]
    assert encoder.item(rows).ids.tolist() == expected
