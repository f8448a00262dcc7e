"""Rows on several nodes: each is read by itself, and one that fails is alone with it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from service.errors import FeatureStoreUnavailable
from service.features.source import FeatureSource, Fetched
from service.features.store import Asked, Node, Places
from service.metrics import Metrics
from service.values import Keys
from tests.unit.service.features.fake_store import FEATURE_SET, LAYOUTS, FakeStore, key, row


class TwoNodes(FakeStore):
    """Even items are on one node, odd ones on the other."""

    nodes: tuple[Node, ...] = ("even", "odd")

    def __init__(self, rows: dict[str, bytes]) -> None:
        super().__init__(rows)
        self.down: Node | None = None
        self.asked: list[Node] = []

    def nodes_of(self, prefix: str, ids: Keys) -> Sequence[tuple[Node, Places]]:
        of = np.array([self.nodes[int(each) % len(self.nodes)] for each in ids])
        return [(node, np.flatnonzero(of == node)) for node in sorted(set(of.tolist()))]

    async def get_many(self, asked: Sequence[Asked], node: Node) -> list[bytes | None]:
        self.asked.append(node)
        if node == self.down:
            raise FeatureStoreUnavailable(f"fake: {node} is down")
        return await super().get_many(asked, node)


def found(fetched: Fetched) -> list[int]:
    """Which items there are; each has its own price."""
    there: list[int] = np.flatnonzero(fetched.items.found).tolist()
    prices = fetched.items.rows["numbers"][there, LAYOUTS["item"].slots["price"].start]
    assert prices.tolist() == there
    return there


def test_a_node_that_is_down_is_left_alone_and_the_others_serve() -> None:
    items = [*range(6)]
    store = TwoNodes({key("item", str(each)): row("item", price=float(each)) for each in items})
    metrics = Metrics()

    def circuit(state: str) -> float | None:
        return metrics.registry.get_sample_value("multirank_feature_circuit", {"state": state})

    async def run() -> None:
        source = FeatureSource(store, 10.0, {"": "defaults"}, 1 << 20, 0.0, 0.0, metrics)

        async def fetch() -> Fetched:
            return await source.fetch(FEATURE_SET, LAYOUTS, None, np.array(items), 10.0)

        assert found(await fetch()) == items
        store.down = "odd"
        for _ in range(3):
            fetched = await fetch()
            assert (found(fetched), fetched.reasons) == ([0, 2, 4], ["fake_unavailable"])
        store.asked.clear()
        fetched = await fetch()
        assert (found(fetched), fetched.reasons) == ([0, 2, 4], ["fake_circuit_open"])
        assert store.asked == ["even"]
        assert (circuit("open"), circuit("closed")) == (1.0, 0.0)
        store.nodes = ("even",)  # whose rows the other has now
        assert found(await fetch()) == items
        await asyncio.sleep(0.001)
        assert (circuit("open"), circuit("closed")) == (0.0, 1.0)
        await source.close()

    asyncio.run(asyncio.wait_for(run(), 20.0))
