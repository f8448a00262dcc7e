"""A feature source on a fake store, and its metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from service.features.source import FeatureSource, Fetched
from service.metrics import Metrics
from service.values import OnFailure
from tests.unit.service.features.fake_store import FEATURE_SET, LAYOUTS, FakeStore, key, row

PATIENCE_S = 10.0


class Bench:
    """A source on a fake store, and its metrics."""

    def __init__(
        self,
        store: FakeStore,
        on_failure: Mapping[str, OnFailure],
        timeout_s: float,
        stale_s: float = 0.0,
        ttl_s: float = 60.0,
    ) -> None:
        self.store = store
        self.metrics = Metrics()
        self.source = FeatureSource(
            store,
            timeout_s=timeout_s,
            on_failure=on_failure,
            cache_bytes=1 << 20,
            ttl_s=ttl_s,
            stale_s=stale_s,
            metrics=self.metrics,
        )

    async def fetch(self, user: str | None, *items: str, budget_s: float = PATIENCE_S) -> Fetched:
        return await self.source.fetch(FEATURE_SET, LAYOUTS, user, list(items), budget_s)

    def count(self, entity: str, outcome: str) -> float:
        labels = {"entity": entity, "outcome": outcome}
        return self.metrics.registry.get_sample_value("multirank_feature_rows_total", labels) or 0

    def failures(self, reason: str) -> float:
        return (
            self.metrics.registry.get_sample_value(
                "multirank_feature_failures_total", {"reason": reason}
            )
            or 0
        )


def on_bench(
    test: Callable[[Bench], Awaitable[None]],
    rows: dict[str, bytes] | None = None,
    on_failure: OnFailure | Mapping[str, OnFailure] = "defaults",
    timeout_s: float = PATIENCE_S,
    stale_s: float = 0.0,
    ttl_s: float = 60.0,
) -> None:
    policy = {"": on_failure} if isinstance(on_failure, str) else on_failure

    async def run() -> None:
        bench = Bench(FakeStore(rows), policy, timeout_s, stale_s, ttl_s)
        bench.source.start()
        await asyncio.sleep(0)
        await test(bench)
        bench.store.open.set()
        if not bench.store.closed:
            await bench.source.close()
        assert bench.store.closed

    asyncio.run(asyncio.wait_for(run(), 2 * PATIENCE_S))


ROWS = {
    key("user", "u"): row("user", age=40),
    key("item", "a"): row("item", id="a", price=1.5),
    key("item", "b"): row("item", id="b", price=2.5),
}


def prices(fetched: Fetched) -> list[float]:
    start = LAYOUTS["item"].slots["price"].start
    found: list[float] = fetched.items.rows["numbers"][:, start].tolist()
    return found
