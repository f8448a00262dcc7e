"""Feature stores opened for tests, and what tests do with any of them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import numpy as np

from service.features.deployment import parse_deployment
from service.features.embedded import EmbeddedStore
from service.features.keys import keys_of, split_key
from service.features.redis import RedisStore, write_rows
from service.features.store import FeatureStore

PREFIX = "mr:contract:item:0123456789abcdef:"
ROWS = {
    f"{PREFIX}{entity_id}": row
    for entity_id, row in {
        "1": b"one",
        "2": bytes(range(256)),
        "3": b"",
        "with space": b"\r\n$-1\r\n",
        "żółć:with:colons": b"\x00",
        "": b"of no id",
    }.items()
}


class Write(Protocol):
    """Writes rows into a store, as whoever keeps its features fresh would."""

    def __call__(self, rows: Mapping[str, bytes]) -> None: ...


Opened = tuple[FeatureStore, Write]
Open = Callable[[], AbstractAsyncContextManager[Opened]]


@asynccontextmanager
async def embedded() -> AsyncIterator[Opened]:
    store = EmbeddedStore()
    yield store, lambda rows: store.put(rows.items())
    await store.close()


@asynccontextmanager
async def on_redis(url: str) -> AsyncIterator[Opened]:
    store = RedisStore(url, timeout_s=10.0)
    with parse_deployment(url).client() as client:
        client.flushdb()  # of the server that these tests have started
        yield store, lambda rows: write_rows(client, list(rows.items()))
    await store.close()


@asynccontextmanager
async def following(store: FeatureStore, tracked: bool = True) -> AsyncIterator[list[str]]:
    """The keys that a store reports as written; from the moment that it does, if `tracked`."""
    reported: list[str] = []

    def changed(keys: Iterable[str]) -> None:
        reported.extend(keys)

    follow = asyncio.ensure_future(store.follow(changed))
    try:
        await soon(lambda: store.tracked or not tracked)
        yield reported
    finally:
        follow.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await follow


async def read(store: FeatureStore, keys: Sequence[str]) -> list[bytes | None]:
    """The rows of keys, in this order, from whichever node has them."""
    found: dict[str, bytes | None] = {}
    for prefix in {split_key(key)[0] for key in keys}:
        ids = [split_key(key)[1] for key in keys if key.startswith(prefix)]
        for node, there in store.nodes_of(prefix, ids):
            these = np.array(ids, object)[there].tolist()
            rows = await store.get_many([(prefix, these)], node)
            found |= dict(zip(keys_of(prefix, these), rows, strict=True))
    return [found[key] for key in keys]


async def soon(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Wait until a condition holds."""
    give_up = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up, f"not within {timeout_s} s"
        await asyncio.sleep(0.01)
