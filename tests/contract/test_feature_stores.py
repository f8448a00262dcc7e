"""The contract of a feature store, run over every store that there is.

Whoever adds a store adds it to the fixture `opened`, with a way to write to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np
import pytest
import redis

from service.errors import FeatureStoreUnavailable
from service.features.deployment import parse_deployment
from service.features.embedded import EmbeddedStore
from service.features.keys import keys_of, split_key
from service.features.redis import RedisStore, write_rows
from service.features.source import FeatureSource
from service.features.store import FeatureStore
from service.metrics import Metrics
from tests import redis_deployments
from tests.redis_deployments import Deploy
from tests.servers import Redis
from tests.unit.service.features import fake_store
from tests.unit.service.features.fake_store import FEATURE_SET, LAYOUTS

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


DEPLOYMENTS: dict[str, Deploy] = {
    "redis": redis_deployments.server,
    "valkey": redis_deployments.valkey,
    "unix": redis_deployments.unix_socket,
    "user": redis_deployments.user_and_password,
    "tls": redis_deployments.tls,
    "sentinel": redis_deployments.sentinel,
    "cluster": redis_deployments.cluster,
}


@pytest.fixture(scope="module", params=["embedded", *DEPLOYMENTS])
def opened(request: pytest.FixtureRequest) -> Iterator[Open]:
    """Opens an empty store of each kind, on a Redis of each deployment."""
    if request.param == "embedded":
        yield embedded
        return
    with (
        # not pytest's: the path of a socket in the file system has a hundred characters at most
        TemporaryDirectory(prefix="mr-") as directory,
        DEPLOYMENTS[request.param](Path(directory)) as url,
    ):
        yield lambda: on_redis(url)


@asynccontextmanager
async def following(store: FeatureStore) -> AsyncIterator[list[str]]:
    """The keys that a store reports as written, from the moment that it does report."""
    reported: list[str] = []

    def changed(keys: Iterable[str]) -> None:
        reported.extend(keys)

    follow = asyncio.ensure_future(store.follow(changed))
    try:
        await soon(lambda: store.tracked)
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


def test_rows_come_back_byte_for_byte_in_the_order_asked(opened: Open) -> None:
    async def check() -> None:
        async with opened() as (store, write):
            write(ROWS)
            for keys in (list(ROWS), list(ROWS)[::-1]):
                assert await read(store, keys) == [ROWS[key] for key in keys]

    asyncio.run(check())


def test_a_row_that_is_not_there_is_none(opened: Open) -> None:
    async def check() -> None:
        async with opened() as (store, write):
            first, second = list(ROWS)[:2]
            asked = [first, f"{PREFIX}nobody", second]
            assert await read(store, asked) == [None, None, None]
            write(ROWS)
            assert await read(store, asked) == [ROWS[first], None, ROWS[second]]

    asyncio.run(check())


def test_a_key_asked_twice_is_answered_twice_and_none_is_answered_by_nothing(opened: Open) -> None:
    async def check() -> None:
        async with opened() as (store, write):
            write(ROWS)
            key = next(iter(ROWS))
            assert await read(store, [key, key]) == [ROWS[key]] * 2
            assert await read(store, []) == []

    asyncio.run(check())


def test_the_last_write_counts(opened: Open) -> None:
    async def check() -> None:
        async with opened() as (store, write):
            first, second = list(ROWS)[:2]
            write(ROWS)
            write({first: b"newer"})
            assert await read(store, [first, second]) == [b"newer", ROWS[second]]

    asyncio.run(check())


def test_writing_nothing_is_allowed(opened: Open) -> None:
    async def check() -> None:
        async with opened() as (store, write):
            write({})
            assert await read(store, list(ROWS)) == [None] * len(ROWS)

    asyncio.run(check())


def test_as_many_rows_as_a_request_may_have_candidates(opened: Open) -> None:
    async def check() -> None:
        async with opened() as (store, write):
            rows = {f"{PREFIX}{number}": b"%d" % number * 40 for number in range(2001)}
            write(rows)
            assert await read(store, list(rows)) == list(rows.values())

    asyncio.run(check())


def test_readers_at_the_same_time_get_their_own_rows(opened: Open) -> None:
    async def check() -> None:
        async with opened() as (store, write):
            rows = {f"{PREFIX}{number}": b"%d" % number for number in range(200)}
            write(rows)
            keys = list(rows)
            asked = [[keys[n], f"{PREFIX}nobody", keys[-n]] for n in range(len(keys))]
            answers = await asyncio.gather(*(read(store, each) for each in asked))
            assert answers == [[rows.get(key) for key in each] for each in asked]

    asyncio.run(check())


def test_a_store_that_is_there_answers_a_ping_and_has_a_name(opened: Open) -> None:
    async def check() -> None:
        async with opened() as (store, _):
            await store.ping()
            assert store.name.isidentifier()

    asyncio.run(check())


def test_no_write_goes_unnoticed(opened: Open) -> None:
    """Either the key is reported, or `generation` says that anything may have changed."""

    async def check() -> None:
        async with opened() as (store, write), following(store) as reported:
            for key, row in ROWS.items():
                before = store.generation
                reported.clear()
                write({key: row})

                def noticed(key: str = key, before: int = before) -> bool:
                    return key in reported or store.generation > before

                await soon(noticed)

    asyncio.run(check())


class TestRedis:
    """What is true of Redis alone: it can be away, hang, and be written to by others."""

    def test_away_is_an_error_and_back_is_not(self, redis_server: Redis) -> None:
        async def check() -> None:
            async with on_redis(redis_server.url) as (store, write):
                write(ROWS)
                redis_server.stop()
                with pytest.raises(FeatureStoreUnavailable, match="redis: "):
                    await read(store, list(ROWS))
                with pytest.raises(FeatureStoreUnavailable, match="redis: "):
                    await store.ping()
                redis_server.start()
                assert await read(store, list(ROWS)) == [None] * len(ROWS)
                await store.ping()

        asyncio.run(check())

    def test_silence_is_an_error_and_the_next_reader_gets_its_own_row(
        self, redis_server: Redis
    ) -> None:
        async def check() -> None:
            store = RedisStore(redis_server.url, timeout_s=0.3)
            with redis_server.client() as client:
                write_rows(client, list(ROWS.items()))
            first, second = list(ROWS)[:2]
            assert await read(store, [first]) == [ROWS[first]]
            with redis_server.held(), pytest.raises(FeatureStoreUnavailable):
                await read(store, [first])
            for _ in range(3):
                assert await read(store, [second]) == [ROWS[second]]
            await store.close()

        asyncio.run(check())

    def test_a_key_of_another_type_is_no_row(self, redis_url: str) -> None:
        async def check() -> None:
            async with on_redis(redis_url) as (store, write):
                first, second = list(ROWS)[:2]
                write({second: ROWS[second]})
                with redis.Redis.from_url(redis_url) as client:
                    client.lpush(first, "a list")
                assert await read(store, [first, second]) == [None, ROWS[second]]

        asyncio.run(check())

    def test_deletion_expiry_and_flushing_are_noticed(self, redis_url: str) -> None:
        async def check() -> None:
            async with on_redis(redis_url) as (store, write), following(store) as reported:
                first, second, *_ = ROWS
                write(ROWS)
                await soon(lambda: set(reported) >= set(ROWS))
                with redis.Redis.from_url(redis_url) as client:
                    reported.clear()
                    client.delete(first)
                    await soon(lambda: first in reported)
                    client.pexpire(second, 50)
                    reported.clear()
                    await asyncio.sleep(0.1)
                    assert await read(store, [second]) == [None]
                    await soon(lambda: second in reported)
                    before = store.generation
                    client.flushdb()
                    await soon(lambda: store.generation > before)

        asyncio.run(check())

    def test_keys_of_others_are_not_reported(self, redis_url: str) -> None:
        async def check() -> None:
            async with on_redis(redis_url) as (store, write), following(store) as reported:
                write({"someone:else": b"1"})
                write({next(iter(ROWS)): b"ours, written later"})
                await soon(lambda: bool(reported))
                assert reported == [next(iter(ROWS))]

        asyncio.run(check())

    def test_a_lost_connection_is_noticed_and_made_again(self, redis_server: Redis) -> None:
        async def check() -> None:
            async with on_redis(redis_server.url) as (store, write), following(store) as reported:
                before = store.generation
                redis_server.stop()
                await soon(lambda: not store.tracked)
                assert store.generation > before
                redis_server.start()
                await soon(lambda: store.tracked)
                write(ROWS)
                await soon(lambda: set(reported) >= set(ROWS))

        asyncio.run(check())

    @pytest.mark.parametrize("kind", ["pubsub", "normal"])
    def test_a_connection_that_is_cut_off_is_noticed(self, redis_server: Redis, kind: str) -> None:
        async def check() -> None:
            async with on_redis(redis_server.url) as (store, write), following(store) as reported:
                before = store.generation
                with redis_server.client() as client:
                    client.client_kill_filter(_type=kind)
                await soon(lambda: store.generation > before)
                await soon(lambda: store.tracked)
                write(ROWS)
                await soon(lambda: set(reported) >= set(ROWS))

        asyncio.run(check())

    def test_following_ends_whenever_it_is_asked_to(self, redis_url: str) -> None:
        """redis-py may lose a cancellation that comes while it connects: asked again, it ends."""

        async def check() -> None:
            for step in range(150):
                store = RedisStore(redis_url, timeout_s=10.0)
                source = FeatureSource(store, 1.0, {"": "defaults"}, 1 << 16, 1.0, 0.0, Metrics())
                source.start()
                await asyncio.sleep(step * 60e-6)
                await asyncio.wait_for(source.close(), timeout=10.0)

        asyncio.run(check())


class TestCluster:
    """What is true of a Cluster alone: rows move from node to node."""

    def test_a_slot_that_moves_is_followed(self, tmp_path: Path) -> None:
        async def check(url: str) -> None:
            async with on_redis(url) as (store, write), following(store) as reported:
                write(ROWS)
                key = next(iter(ROWS))
                assert await read(store, [key]) == [ROWS[key]]
                await soon(lambda: key in reported)
                move_slot_of(key, url)
                write({key: b"after the move"})
                assert await read(store, [key]) == [b"after the move"]
                before = store.generation
                reported.clear()
                write({key: b"and once more"})
                await soon(lambda: key in reported or store.generation > before)

        with redis_deployments.cluster(tmp_path) as url:
            asyncio.run(check(url))

    def test_a_node_that_is_lost_is_noticed(self, tmp_path: Path) -> None:
        async def check(url: str) -> None:
            async with on_redis(url) as (store, write), following(store):
                write(ROWS)
                before = store.generation
                _, node = nodes_of(next(iter(ROWS)), url)
                with contextlib.suppress(redis.ConnectionError):
                    node.shutdown(nosave=True)
                node.close()
                await soon(lambda: store.generation > before and not store.tracked)
                with pytest.raises(FeatureStoreUnavailable, match="redis: "):
                    await read(store, list(ROWS))

        with redis_deployments.cluster(tmp_path) as url:
            asyncio.run(check(url))

    def test_a_node_that_is_lost_takes_no_rows_of_others_with_it(self, tmp_path: Path) -> None:
        items = [str(number) for number in range(60)]
        price = LAYOUTS["item"].slots["price"].start
        keys = {each: fake_store.key("item", each) for each in items}
        rows = {keys[each]: fake_store.row("item", price=float(each)) for each in items}

        async def found(store: FeatureStore) -> list[str]:
            """The items that a process which has none yet can read."""
            source = FeatureSource(store, 10.0, {"": "defaults"}, 1 << 20, 60.0, 0.0, Metrics())
            fetched = await source.fetch(FEATURE_SET, LAYOUTS, None, items, 20.0)
            there = np.flatnonzero(fetched.items.found)
            assert fetched.items.rows["numbers"][there, price].tolist() == there.tolist()
            assert fetched.reasons == ([] if len(there) == len(items) else ["redis_unavailable"])
            return [items[each] for each in there.tolist()]

        async def check(url: str) -> None:
            async with on_redis(url) as (store, write):
                write(rows)
                for _ in range(2):  # before and after the slots are known
                    assert await found(store) == items
                of_port = {each: port_of(keys[each], url) for each in items}
                with redis.Redis(port=of_port["0"]) as node, contextlib.suppress(redis.RedisError):
                    node.shutdown(nosave=True)
                left = [each for each in items if of_port[each] != of_port["0"]]
                assert left
                for _ in range(10):
                    assert await found(store) == left

        with redis_deployments.cluster(tmp_path, "--cluster-require-full-coverage", "no") as url:
            asyncio.run(check(url))


def nodes_of(key: str, url: str) -> tuple[int, redis.Redis]:
    """The slot of a key, and a client of the node that has it."""
    with contextlib.closing(parse_deployment(url).client()) as client:
        assert isinstance(client, redis.RedisCluster)
        ask: Any = client
        slot, node = ask.keyslot(key), ask.get_node_from_key(key)
        return slot, redis.Redis(host=node.host, port=node.port)


def port_of(key: str, url: str) -> int:
    """The port of the node that has a key."""
    _, node = nodes_of(key, url)
    with node:
        return int(node.get_connection_kwargs()["port"])


def move_slot_of(key: str, url: str) -> None:
    """Give the slot of a key, and its rows, to another node."""
    slot, source = nodes_of(key, url)
    others = [node.split(":") for node in url.partition("://")[2].split(",")]
    port = source.get_connection_kwargs()["port"]
    host, target_port = next(node for node in others if int(node[1]) != port)
    with source, redis.Redis(host=host, port=int(target_port)) as target:
        ask: list[Any] = [source.execute_command, target.execute_command]
        source_id, target_id = (each("CLUSTER", "MYID").decode() for each in ask)
        ask[1]("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
        ask[0]("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
        keys = ask[0]("CLUSTER", "GETKEYSINSLOT", slot, 100)
        ask[0]("MIGRATE", host, target_port, "", 0, 5000, "KEYS", *keys)
        for each in reversed(ask):
            each("CLUSTER", "SETSLOT", slot, "NODE", target_id)
