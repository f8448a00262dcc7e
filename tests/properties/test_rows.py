"""Packed rows: whatever is packed is read back, and whatever is damaged is not."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from bundle.packing import NO_VALUE, PADDING, hash_value
from bundle.rows import RowLayout, Rows
from bundle.schema import ENTITIES, Bucketised, Categorical, Entity, IdList, Number
from tests.unit.bundle.strategies import Columns, Model, models, raw_columns

slow = settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow])
times_ms = st.integers(-(2**63), 2**63 - 1)


@st.composite
def packed(
    draw: st.DrawFn, min_rows: int = 0, max_rows: int = 5
) -> tuple[Model, Entity, Columns, RowLayout, Rows]:
    model = draw(models())
    entity: Entity = draw(st.sampled_from(ENTITIES))
    count = draw(st.integers(min_rows, max_rows))
    columns = draw(raw_columns(model, entity, count))
    layout = RowLayout(model.schema, entity)
    return model, entity, columns, layout, layout.pack(columns, count)


def as_float32(value: Any) -> float:
    (rounded,) = struct.unpack("<f", struct.pack("<f", float(value)))
    assert isinstance(rounded, float)
    return rounded


@slow
@given(packed(), times_ms)
def test_what_is_packed_is_read_back(
    given_rows: tuple[Model, Entity, Columns, RowLayout, Rows], written_ms: int
) -> None:
    model, entity, columns, layout, rows = given_rows
    decoded = layout.decode([row.tobytes() for row in layout.seal(rows, written_ms)])

    assert decoded.found.all()
    assert not decoded.foreign.any()
    assert not decoded.corrupt.any()
    assert decoded.rows.tobytes() == rows.tobytes()
    assert (decoded.rows["written"] == written_ms).all()
    missing = dict(zip(layout.slots, layout.missing(decoded.rows).T, strict=True))
    for feature in model.schema.of(entity):
        slot = layout.slots[feature.name]
        block = "hashes" if isinstance(feature, Categorical | IdList) else "numbers"
        for row in range(len(rows)):
            value = columns.get(feature.name, [None] * len(rows))[row]
            stored = decoded.rows[block][row, slot.columns].tolist()
            assert missing[feature.name][row] == (value is None)
            if value is None:
                assert block == "numbers" or stored[0] == NO_VALUE
            elif isinstance(feature, Categorical):
                assert stored == [hash_value(value)]
            elif isinstance(feature, IdList):
                hashes = [hash_value(each) for each in value[: slot.width]]
                assert stored == hashes + [PADDING] * (slot.width - len(hashes))
            elif isinstance(feature, Number | Bucketised):
                assert stored == [as_float32(value)]
            else:
                assert stored == [as_float32(each) for each in value]


@slow
@given(packed(min_rows=1), times_ms, st.data())
def test_a_flipped_bit_is_never_accepted(
    given_rows: tuple[Model, Entity, Columns, RowLayout, Rows], written_ms: int, data: st.DataObject
) -> None:
    *_, layout, rows = given_rows
    blobs: list[bytes | None] = [row.tobytes() for row in layout.seal(rows, written_ms)]
    victim = data.draw(st.integers(0, len(blobs) - 1))
    damaged = bytearray(blobs[victim] or b"")
    byte, bit = data.draw(st.tuples(st.integers(0, len(damaged) - 1), st.integers(0, 7)))
    damaged[byte] ^= 1 << bit
    blobs[victim] = bytes(damaged)

    decoded = layout.decode(blobs)
    assert decoded.found.tolist() == [row != victim for row in range(len(blobs))]
    assert decoded.foreign[victim] == (byte < 8)
    assert decoded.corrupt[victim] == (byte >= 8)
    assert decoded.rows[victim].tobytes() == layout.empty(1)[0].tobytes()


@slow
@given(packed(min_rows=1, max_rows=2), times_ms, st.data())
def test_a_row_of_another_length_is_never_accepted(
    given_rows: tuple[Model, Entity, Columns, RowLayout, Rows], written_ms: int, data: st.DataObject
) -> None:
    *_, layout, rows = given_rows
    blobs: list[bytes | None] = [row.tobytes() for row in layout.seal(rows, written_ms)]
    whole = blobs[0] or b""
    blobs[0] = data.draw(
        st.integers(0, len(whole) - 1).map(lambda length: whole[:length])
        | st.binary(min_size=1, max_size=16).map(lambda more: whole + more)
    )

    decoded = layout.decode(blobs)
    assert decoded.found.tolist() == [False] + [True] * (len(blobs) - 1)
    assert decoded.corrupt[0]
    assert layout.missing(decoded.rows)[0].all()


@slow
@given(packed(), st.lists(st.none() | st.binary(max_size=120), max_size=4))
def test_noise_is_never_accepted(
    given_rows: tuple[Model, Entity, Columns, RowLayout, Rows], blobs: list[bytes | None]
) -> None:
    layout = given_rows[3]
    decoded = layout.decode(blobs)
    assert not decoded.found.any()
    assert layout.missing(decoded.rows).all()
    states = np.stack((decoded.foreign, decoded.corrupt)).sum(axis=0)
    assert states.tolist() == [blob is not None for blob in blobs]


@slow
@given(packed(min_rows=1), models(), st.sampled_from(ENTITIES))
def test_another_layout_is_foreign(
    given_rows: tuple[Model, Entity, Columns, RowLayout, Rows], other: Model, entity: Entity
) -> None:
    *_, layout, rows = given_rows
    reader = RowLayout(other.schema, entity)
    shapes = [
        (each.entity, [(s.feature.name, s.feature.kind, s.width) for s in each.slots.values()])
        for each in (layout, reader)
    ]
    assume(shapes[0] != shapes[1])
    decoded = reader.decode([row.tobytes() for row in layout.seal(rows, 0)])
    assert decoded.foreign.all()
    assert not decoded.found.any()
    assert not decoded.corrupt.any()


@slow
@given(packed(min_rows=2), times_ms, times_ms)
def test_the_content_hash_is_of_the_values_alone(
    given_rows: tuple[Model, Entity, Columns, RowLayout, Rows], first_ms: int, second_ms: int
) -> None:
    *_, layout, rows = given_rows
    hashes = layout.content_hash(layout.seal(rows.copy(), first_ms))
    np.testing.assert_array_equal(hashes, layout.content_hash(layout.seal(rows, second_ms)))
    np.testing.assert_array_equal(hashes[::-1], layout.content_hash(rows[::-1]))
    values = [row.tobytes()[24:] for row in rows]
    assert len(set(hashes.tolist())) == len(set(values))


@slow
@given(models(min_features=1), st.sampled_from(ENTITIES), st.data())
def test_overlay_writes_what_is_given_and_nothing_else(
    model: Model, entity: Entity, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, 3))
    below = data.draw(raw_columns(model, entity, count))
    above = data.draw(raw_columns(model, entity, count))
    layout = RowLayout(model.schema, entity)
    rows = layout.pack(below, count)
    layout.overlay(rows, layout.pack(above, count))

    nothing = [None] * count
    merged = {
        name: [
            under if over is None else over
            for under, over in zip(below.get(name, nothing), above.get(name, nothing), strict=True)
        ]
        for name in layout.slots
    }
    assert rows.tobytes() == layout.pack(merged, count).tobytes()


@given(st.one_of(st.integers(), st.text(), st.booleans()))
def test_a_hash_is_never_a_reserved_number(value: int | str | bool) -> None:
    assert NO_VALUE < hash_value(value) < 2**64
    text = str(value).lower() if isinstance(value, bool) else str(value)
    assert hash_value(text) == hash_value(value)
