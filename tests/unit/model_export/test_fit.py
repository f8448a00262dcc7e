"""Fitting looks at the training part alone, weighs by rows, and names what is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from bundle.packing import hash_value
from bundle.schema import Bucketised, Number
from model_export.data.declarations import FeatureDeclaration
from model_export.data.fit import FittedFeatures, fit
from model_export.data.impressions import Impressions
from model_export.errors import DataInvalid

# Four impressions of 3, 1, 0 and 2 rows; four items of 3, 2, 1 and 0 rows.
TRAIN = Impressions(
    users={"age": [20.0, None, 99.0, 50.0], "city": ["rome", "oslo", "lima", "rome"]},
    contexts={},
    items={
        "item_id": ["a", "b", "c", "only later"],
        "price": [1.0, 4.0, None, 1000.0],
        "genres": [["x", "x", "y"], ["y"], None, ["z"]],
        "broken": [1.0, float("nan"), 1.0, 1.0],
    },
    user_row=np.array([0, 0, 0, 1, 3, 3]),
    item_row=np.array([0, 0, 1, 0, 1, 2]),
    outcomes={},
    groups=np.zeros(6, np.int64),
)


def _fit(*declared: dict[str, Any]) -> FittedFeatures:
    adapter: TypeAdapter[FeatureDeclaration] = TypeAdapter(FeatureDeclaration)
    return fit([adapter.validate_python(one) for one in declared], TRAIN)


def _values(fitted: FittedFeatures, key: str) -> list[int]:
    return [int(hashed) for hashed in fitted.vocabularies[key]]


def test_vocabularies_hold_training_values_by_frequency() -> None:
    fitted = _fit(
        {"name": "item_id", "entity": "item", "kind": "categorical", "vocabulary": "fit"},
        {"name": "city", "entity": "user", "kind": "categorical", "vocabulary": "fit"},
    )
    assert _values(fitted, "item.item_id") == [hash_value(item) for item in "abc"]
    assert _values(fitted, "user.city") == [hash_value("rome"), hash_value("oslo")]


def test_rare_values_are_left_out() -> None:
    item = {"name": "item_id", "entity": "item", "kind": "categorical", "vocabulary": "fit"}
    fitted = _fit({**item, "min_count": 2})
    assert _values(fitted, "item.item_id") == [hash_value("a"), hash_value("b")]


def test_a_list_counts_each_value_once_a_row() -> None:
    genres = {"name": "genres", "entity": "item", "kind": "id_list", "vocabulary": "fit"}
    fitted = _fit({**genres, "max_length": 3})
    assert _values(fitted, "item.genres") == [hash_value("y"), hash_value("x")]


def test_numbers_are_weighed_by_rows_and_skip_what_is_absent() -> None:
    fitted = _fit({"name": "price", "entity": "item", "kind": "number"})
    (price,) = fitted.schema.features
    rows = np.array([1.0, 1.0, 1.0, 4.0, 4.0])
    assert isinstance(price, Number)
    assert (price.mean, price.std) == pytest.approx((rows.mean(), rows.std()))
    assert price.default == pytest.approx(rows.mean())


def test_a_declared_default_is_kept() -> None:
    declared = {"name": "price", "entity": "item", "kind": "number", "default": 7.0}
    assert _fit(declared).schema.features[0].default == 7.0


def test_quantiles_come_from_training_rows() -> None:
    declared = {"name": "age", "entity": "user", "kind": "bucketised", "quantiles": 2}
    (age,) = _fit(declared).schema.features
    assert isinstance(age, Bucketised)
    assert age.boundaries == (20.0,)
    assert age.default == 20.0


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"name": "height", "kind": "number"}, "user.height: not in the data; user has age, city"),
        ({"name": "city", "kind": "number"}, "user.city: "),
        (
            {"name": "age", "kind": "categorical", "vocabulary": "fit"},
            "user.age: expected a str",
        ),
        (
            {"name": "city", "kind": "categorical", "vocabulary": "fit", "min_count": 9},
            "user.city: no value is in 9 training rows",
        ),
        ({"name": "city", "kind": "categorical", "shares": "item.x"}, "user.city: shares 'item.x'"),
        ({"name": "broken", "entity": "item", "kind": "number"}, "item.broken: NaN or infinity"),
    ],
)
def test_what_does_not_fit_is_named(declared: dict[str, Any], message: str) -> None:
    with pytest.raises(DataInvalid, match=message):
        _fit({"entity": "user", **declared})
