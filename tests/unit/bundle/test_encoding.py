"""Encoding: vocabularies that do not fit are refused; one case of every kind, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from bundle.encoding import Encoder, side_layout
from bundle.errors import ManifestInvalid
from bundle.packing import hash_value
from bundle.schema import (
    Bucketised,
    Categorical,
    DenseVector,
    FeatureSchema,
    IdList,
    Number,
)

SCHEMA = FeatureSchema(
    features=(
        Bucketised(name="age", entity="user", boundaries=(18.0, 30.0), default=20.0),
        IdList(name="history", entity="user", max_length=3, shares="item.id", default=("b",)),
        Number(name="hour", entity="context", mean=12.0, std=4.0, default=12.0),
        Categorical(name="id", entity="item", vocabulary_size=2),
        Number(name="price", entity="item", mean=1.0, std=0.5, default=3.0),
        DenseVector(name="content", entity="item", dimension=2, default=(5.0, 6.0)),
    )
)
VOCABULARY = np.array([hash_value("a"), hash_value("b")], np.uint64)
ENCODER = Encoder(SCHEMA, {"item.id": VOCABULARY})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "item.id: vocabulary is absent, expected 2 values"),
        (["a"], "item.id: vocabulary is of size 1, expected 2 values"),
        (["a", "b", "c"], "item.id: vocabulary is of size 3, expected 2 values"),
        (["a", "a"], "a value twice in a vocabulary of item.id"),
    ],
)
def test_a_vocabulary_that_does_not_fit_is_refused(values: list[str] | None, message: str) -> None:
    hashes = {
        "item.id": np.array([hash_value(value) for value in values or []], np.uint64),
        "item.other": VOCABULARY,
    }
    if values is None:
        del hashes["item.id"]
    with pytest.raises(ManifestInvalid) as caught:
        Encoder(SCHEMA, hashes)
    assert message in str(caught.value)


def test_users_and_contexts() -> None:
    users = ENCODER.layouts["user"].pack(
        {
            "age": [17.99, 18, 30.0, None, 3.4e38],
            "history": [["b", "new", "a", "a"], [], None, ["a"], ["a", "b"]],
        },
        5,
    )
    contexts = ENCODER.layouts["context"].pack({"hour": [12, 16, 8.0, None, 0]}, 5)
    encoded = ENCODER.user(users, contexts)
    assert encoded.ids.tolist() == [
        [3, 1, 2, 2],
        [0, 0, 0, 3],
        [3, 0, 0, 4],  # a missing list is the default, an empty one is empty
        [2, 0, 0, 3],
        [2, 3, 0, 4],
    ]
    assert encoded.numbers.tolist() == [[0.0], [1.0], [-1.0], [0.0], [-3.0]]


def test_items() -> None:
    items = ENCODER.layouts["item"].pack(
        {"id": ["a", "new", None], "price": [1.5, None, 1], "content": [[1, 2], None, [3, 4]]}, 3
    )
    encoded = ENCODER.item(items)
    assert encoded.ids.tolist() == [[2], [1], [1]]
    assert encoded.numbers.tolist() == [[1.0, 1.0, 2.0], [4.0, 5.0, 6.0], [0.0, 3.0, 4.0]]


def test_side_layout_names_the_columns() -> None:
    user, item = side_layout(SCHEMA, "user"), side_layout(SCHEMA, "item")
    columns = [(c.feature.key, c.table, c.start, c.width, c.pooled) for c in user.id_columns]
    assert columns == [
        ("user.history", "item.id", 0, 3, True),
        ("user.age", "user.age", 3, 1, False),
    ]
    assert (user.id_width, user.number_width) == (4, 1)
    assert [column.feature.key for column in item.id_columns] == ["item.id"]
    assert (item.id_width, item.number_width) == (1, 3)


def test_raw_numbers_are_in_their_own_unit() -> None:
    items = ENCODER.layouts["item"].pack({"price": [7.5, None]}, 2)
    users = ENCODER.layouts["user"].pack({"age": [None, 40]}, 2)
    assert ENCODER.raw_number("item", "price", items).tolist() == [7.5, 3.0]
    assert ENCODER.raw_number("user", "age", users).tolist() == [20.0, 40.0]
    assert ENCODER.raw_number("item", "price", items).dtype == np.float64


def test_a_number_that_overflows_spoils_its_own_row_alone() -> None:
    items = ENCODER.layouts["item"].pack({"price": [3.4e38, 2.0]}, 2)
    assert ENCODER.item(items).numbers[:, 0].tolist() == [float("inf"), 2.0]


def test_encoding_leaves_its_rows_alone() -> None:
    rows = ENCODER.layouts["item"].pack({"price": [7.5, None], "id": [None, "a"]}, 2)
    before = rows.tobytes()
    ENCODER.item(rows)
    assert rows.tobytes() == before
