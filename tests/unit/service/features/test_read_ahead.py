"""Reading ahead: rows in a new layout, of the items that are asked for most."""

from __future__ import annotations

import numpy as np

from bundle.encoding import Encoder
from bundle.schema import FeatureSchema, Number
from service.errors import FeatureStoreUnavailable
from service.features.keys import key_prefix
from tests.unit.bundle.tiny import SCHEMA, VOCABULARIES
from tests.unit.service.features.fake_store import FEATURE_SET, LAYOUTS, key
from tests.unit.service.features.source_bench import ROWS, Bench, on_bench

SIZE = Number(name="size", entity="item")
NEW = Encoder(FeatureSchema(features=(*SCHEMA.features, SIZE)), VOCABULARIES).layouts


def new_row(item: str) -> dict[str, bytes]:
    """Of an item, in the new layout."""
    layout = NEW["item"]
    packed = layout.seal(layout.pack({"id": [item], "price": [1.0], "size": [2.0]}, 1), 1)
    return {key_prefix(FEATURE_SET, layout) + item: bytes(packed[0].tobytes())}


async def asked_for(bench: Bench) -> None:
    for _ in range(2):
        await bench.fetch("u", "a", "b", "unknown")


def test_what_the_store_has_is_there_and_hot() -> None:
    async def test(bench: Bench) -> None:
        await asked_for(bench)
        bench.store.rows |= new_row("a")
        assert await bench.source.read_ahead(FEATURE_SET, NEW) == (2, 1)
        (hot,) = bench.source.caches.hot_items(FEATURE_SET, NEW["item"], 100)
        assert len(hot) == 1
        reads = len(bench.store.reads)
        fetched = await bench.source.fetch(FEATURE_SET, NEW, None, ["a"], 1.0)
        assert fetched.items.found.all()
        assert len(bench.store.reads) == reads

    on_bench(test, dict(ROWS))


def test_numbers_are_ids_like_texts() -> None:
    async def test(bench: Bench) -> None:
        numbers = np.array([7, -1, 2**40])
        for number in numbers.tolist():
            bench.store.rows[key("item", str(number))] = ROWS[key("item", "a")]
        for _ in range(2):
            await bench.source.fetch(FEATURE_SET, LAYOUTS, None, numbers, 1.0)
        bench.store.rows |= new_row("7") | new_row("-1") | new_row(str(2**40))
        assert await bench.source.read_ahead(FEATURE_SET, NEW) == (3, 3)

    on_bench(test, dict(ROWS))


def test_nothing_is_asked_for_where_nothing_is_new_or_known() -> None:
    async def test(bench: Bench) -> None:
        assert await bench.source.read_ahead(FEATURE_SET, NEW) == (0, 0)
        await asked_for(bench)
        reads = len(bench.store.reads)
        assert await bench.source.read_ahead("another", NEW) == (0, 0)
        assert await bench.source.read_ahead(FEATURE_SET, LAYOUTS) == (0, 0)
        assert len(bench.store.reads) == reads

    on_bench(test, dict(ROWS))


def test_a_store_that_fails_is_not_said_to_lack_rows() -> None:
    async def test(bench: Bench) -> None:
        await asked_for(bench)
        bench.store.failure = FeatureStoreUnavailable("gone")
        assert await bench.source.read_ahead(FEATURE_SET, NEW) == (0, 0)

    on_bench(test, dict(ROWS))
    on_bench(test, dict(ROWS), on_failure="error")
