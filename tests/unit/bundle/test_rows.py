"""Packed rows: what does not fit is refused by name, and what is stored is checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from bundle.errors import ValueRejected
from bundle.packing import NO_VALUE, hash_value
from bundle.rows import RowLayout
from bundle.schema import Bucketised, Categorical, DenseVector, FeatureSchema, IdList, Number

SCHEMA = FeatureSchema(
    features=(
        Number(name="price", entity="item"),
        Categorical(name="brand", entity="item", hash_buckets=10),
        IdList(name="genres", entity="item", max_length=2, hash_buckets=10),
        Bucketised(name="year", entity="item", boundaries=(1990.0,)),
        DenseVector(name="content", entity="item", dimension=3),
        Number(name="age", entity="user"),
    )
)
LAYOUT = RowLayout(SCHEMA, "item")
INF = float("inf")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("price", True, "expected a number, got bool"),
        ("price", np.True_, "expected a number, got bool"),
        ("price", "3", "expected a number, got str"),
        ("price", [3.0], "expected a number, got list"),
        ("price", {}, "expected a number, got dict"),
        ("price", float("nan"), "expected a finite number within float32, got nan"),
        ("price", -INF, "expected a finite number within float32, got -inf"),
        ("price", 1e39, "expected a finite number within float32, got 1e+39"),
        ("price", 10**39, "expected a finite number within float32, got 1e+39"),
        pytest.param(
            "price",
            10**400,
            "expected a finite number within float32, got inf",
            id="400 digits",
        ),
        pytest.param(
            "price",
            10**5000,
            "expected a finite number within float32, got inf",
            id="5000 digits",
        ),
        ("year", False, "expected a number, got bool"),
        ("year", INF, "expected a finite number within float32, got inf"),
        ("brand", 1.0, "expected a string or an integer, got float"),
        ("brand", ["x"], "expected a string or an integer, got list"),
        ("brand", {"x": 1}, "expected a string or an integer, got dict"),
        ("brand", b"x", "expected a string or an integer, got bytes"),
        ("genres", "drama", "expected a list of ids, got str"),
        ("genres", 7, "expected a list of ids, got int"),
        ("genres", {"drama": 1}, "expected a list of ids, got dict"),
        ("genres", [None], "expected a string or an integer, got NoneType"),
        ("genres", ["drama", 1.5], "expected a string or an integer, got float"),
        ("genres", [["drama"]], "expected a string or an integer, got list"),
        ("content", 1.0, "expected a list of 3 numbers"),
        ("content", [1.0, 2.0], "expected a list of 3 numbers"),
        ("content", [1.0, 2.0, 3.0, 4.0], "expected a list of 3 numbers"),
        ("content", "abc", "expected a list of 3 numbers"),
        ("content", [1.0, 2.0, "3"], "expected a number, got str"),
        ("content", [1.0, None, 3.0], "expected a number, got NoneType"),
        ("content", [1.0, 2.0, INF], "expected a finite number within float32, got inf"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_feature_and_row(
    name: str, value: object, reason: str
) -> None:
    with pytest.raises(ValueRejected) as caught:
        LAYOUT.pack({name: [None, value]}, 2)
    assert (caught.value.feature, caught.value.row) == (name, 1)
    assert caught.value.reason == reason
    assert str(caught.value) == f"{name}[1]: {reason}"


@pytest.mark.parametrize(
    ("columns", "feature", "reason"),
    [
        (
            {"prise": [1.0, 2.0]},
            "prise",
            "unknown item feature; the model knows: brand, genres, price, year, content",
        ),
        ({"age": [1.0, 2.0]}, "age", "unknown item feature"),
        ({"price": [1.0]}, "price", "has 1 values for 2 rows"),
        ({"price": [1.0, 2.0, 3.0]}, "price", "has 3 values for 2 rows"),
        ({"brand": "ab", "year": []}, "year", "has 0 values for 2 rows"),
    ],
)
def test_a_column_that_does_not_fit_is_refused_by_feature(
    columns: dict[str, Sequence[Any]], feature: str, reason: str
) -> None:
    with pytest.raises(ValueRejected) as caught:
        LAYOUT.pack(columns, 2)
    assert (caught.value.feature, caught.value.row) == (feature, None)
    assert caught.value.reason.startswith(reason)


def test_an_entity_without_features_says_so() -> None:
    with pytest.raises(ValueRejected, match="unknown context feature; the model knows: none"):
        RowLayout(SCHEMA, "context").pack({"hour": [1]}, 1)


def test_numbers_at_the_edge_of_float32_fit() -> None:
    rows = LAYOUT.pack({"price": [3.4e38, -3.4e38, 0, np.float64(1.5), np.int64(2)]}, 5)
    assert np.isfinite(rows["numbers"][:, LAYOUT.slots["price"].start]).all()


def test_only_the_first_ids_of_a_list_are_read() -> None:
    """Those past the end may be anything: they are not part of the row."""
    rows = LAYOUT.pack({"genres": [["a", 2, 3.5, None], np.array([5, 6, 7]), ("x",), []]}, 4)
    assert rows["hashes"][:, LAYOUT.slots["genres"].columns].tolist() == [
        [hash_value("a"), hash_value("2")],
        [hash_value(5), hash_value(6)],
        [hash_value("x"), 0],
        [0, 0],
    ]


@pytest.mark.parametrize(
    ("values", "same"),
    [
        ((196, "196", np.int64(196), np.str_("196")), True),
        ((True, "true", np.True_), True),
        ((False, "false"), True),
        ((0, "0"), True),
        ((1, True), False),
        ((0, False), False),
        (("196", " 196"), False),
        (("a", "A"), False),
        ((0, ""), False),
        ((-1, 1), False),
    ],
)
def test_which_values_are_the_same(values: tuple[object, ...], same: bool) -> None:
    hashes = [hash_value(value) for value in values]
    assert len(set(hashes)) == (1 if same else len(values))
    packed = LAYOUT.pack({"brand": values}, len(values))["hashes"][:, LAYOUT.slots["brand"].start]
    assert packed.tolist() == hashes


def test_hashes_are_stable_across_releases() -> None:
    """Stored rows and published vocabularies hold these numbers."""
    assert hash_value("196") == 0x431CD221F6B2BB04
    assert hash_value("") == 0x2D06800538D394C2
    assert hash_value("\ud800") == hash_value("\ud800")  # half a character is a value as well
    assert hash_value("\ud800") != hash_value("?")


@pytest.mark.parametrize("value", [None, 1.0, b"x", [], object()])
def test_what_is_no_categorical_value(value: object) -> None:
    with pytest.raises(TypeError, match=f"got {type(value).__name__}"):
        hash_value(value)


def test_the_layout_of_a_row() -> None:
    assert [slot.feature.name for slot in LAYOUT.hash_slots] == ["brand", "genres"]
    assert [slot.feature.name for slot in LAYOUT.number_slots] == ["price", "year", "content"]
    assert LAYOUT.first_column.tolist() == [0, 1, 1]
    assert LAYOUT.dtype.itemsize == 24 + 3 * 8 + 6 * 4  # five numbers and one to fill the word
    assert list(LAYOUT.slots) == ["brand", "genres", "price", "year", "content"]


def test_the_digest_of_a_layout_is_of_names_kinds_lengths_and_order() -> None:
    def digest(*features: Any) -> int:
        return int(RowLayout(FeatureSchema(features=features), "item").digest)

    a, b = Number(name="a", entity="item"), Number(name="b", entity="item")
    brand = Categorical(name="a", entity="item", hash_buckets=10)
    genres = IdList(name="a", entity="item", max_length=1, hash_buckets=10)
    different = [
        digest(),
        digest(a),
        digest(b),
        digest(a, b),
        digest(b, a),
        digest(brand),
        digest(genres),
        digest(genres.model_copy(update={"max_length": 2})),
        digest(Bucketised(name="a", entity="item", boundaries=(1.0,))),
        digest(DenseVector(name="a", entity="item", dimension=1)),
        int(RowLayout(FeatureSchema(features=()), "user").digest),
    ]
    assert len(set(different)) == len(different)
    # what a value means to the model is not what is stored
    assert digest(a) == digest(Number(name="a", entity="item", mean=3.0, std=2.0, default=1.0))
    assert digest(brand) == digest(Categorical(name="a", entity="item", vocabulary_size=3))


def test_decode_tells_absent_foreign_and_corrupt_apart() -> None:
    row = LAYOUT.seal(LAYOUT.pack({"price": [1.5]}, 1), 1_700_000_000_000)[0].tobytes()
    other = RowLayout(SCHEMA, "user")
    foreign = other.seal(other.empty(1), 0)[0].tobytes()
    damaged = row[:-1] + bytes([row[-1] ^ 1])
    decoded = LAYOUT.decode([row, None, foreign, damaged, row[:-1], row + b"\0", b"", b"short"])
    assert decoded.found.tolist() == [True] + [False] * 7
    assert decoded.foreign.tolist() == [False, False, True] + [False] * 5
    assert decoded.corrupt.tolist() == [False] * 3 + [True] * 5
    assert decoded.rows["written"].tolist() == [1_700_000_000_000] + [0] * 7
    assert LAYOUT.missing(decoded.rows)[1:].all()
    assert LAYOUT.missing(decoded.rows)[0].tolist() == [True, True, False, True, True]


def test_decoded_rows_may_be_written_to() -> None:
    """Inline features are laid over them."""
    blob = LAYOUT.seal(LAYOUT.pack({"price": [1.5]}, 1), 0)[0].tobytes()
    decoded = LAYOUT.decode([blob])
    LAYOUT.overlay(decoded.rows, LAYOUT.pack({"price": [2.5]}, 1))
    again = LAYOUT.decode([blob])
    assert again.rows["numbers"][0, 0] == 1.5
    assert decoded.rows["numbers"][0, 0] == 2.5


def test_an_empty_list_given_inline_is_a_value() -> None:
    rows = LAYOUT.pack({"genres": [["a", "b"]], "brand": ["x"]}, 1)
    LAYOUT.overlay(rows, LAYOUT.pack({"genres": [[]]}, 1))
    assert rows["hashes"][0].tolist() == [hash_value("x"), 0, 0]
    LAYOUT.overlay(rows, LAYOUT.pack({"genres": [None], "brand": [None]}, 1))
    assert rows["hashes"][0].tolist() == [hash_value("x"), 0, 0]
    assert LAYOUT.empty(1)["hashes"][0].tolist() == [NO_VALUE, NO_VALUE, 0]


def test_the_content_hash_knows_what_stands_where() -> None:
    def content(**values: Any) -> int:
        rows = LAYOUT.pack({name: [value] for name, value in values.items()}, 1)
        return int(LAYOUT.content_hash(rows)[0])

    hashes = [
        content(genres=["a", "b"], brand="c"),
        content(genres=["b", "a"], brand="c"),
        content(genres=["a", "c"], brand="b"),
        content(content=[1.0, 0.0, 2.0], price=3.0),
        content(content=[2.0, 0.0, 1.0], price=3.0),
        content(content=[1.0, 0.0, 3.0], price=2.0),
        content(genres=[]),
        content(),
    ]
    assert len(set(hashes)) == len(hashes)


def test_no_rows_at_all() -> None:
    assert len(LAYOUT.decode([]).rows) == 0
    assert len(LAYOUT.seal(LAYOUT.pack({"price": []}, 0), 0)) == 0
