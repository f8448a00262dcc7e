"""Keys of the feature store: stable, readable, and never mistaken for each other."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bundle.rows import RowLayout
from bundle.schema import FeatureSchema, Number
from service.features.keys import NAMESPACE, key_prefix, split_key
from tests.unit.service.features.fake_store import LAYOUTS


def test_the_parts_of_a_key() -> None:
    prefix = key_prefix("movielens", LAYOUTS["item"])
    assert prefix.startswith(f"{NAMESPACE}movielens:item:")
    assert prefix.endswith(f":{int(LAYOUTS['item'].digest):016x}:")
    assert split_key(prefix + "242") == (prefix, "242")


@given(st.text())
def test_an_id_may_hold_anything(entity_id: str) -> None:
    prefix = key_prefix("set.with-signs_1", LAYOUTS["user"])
    assert split_key(prefix + entity_id) == (prefix, entity_id)


def test_other_features_have_other_keys() -> None:
    layouts = [
        RowLayout(FeatureSchema(features=(Number(name=name, entity="item"),)), "item")
        for name in ("price", "year")
    ]
    assert len({key_prefix("set", layout) for layout in layouts}) == 2
