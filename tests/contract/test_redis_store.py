"""What is true of Redis alone: it can be away, hang, and be written to by others."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis

from service.errors import FeatureStoreUnavailable
from service.features.redis import RedisStore, write_rows
from service.features.source import FeatureSource
from service.metrics import Metrics
from tests.contract.stores import (
    ROWS,
    following,
    on_redis,
    read,
    soon,
)
from tests.servers import Redis


def test_away_is_an_error_and_back_is_not(redis_server: Redis) -> None:
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


def test_silence_is_an_error_and_the_next_reader_gets_its_own_row(redis_server: Redis) -> None:
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


def test_a_key_of_another_type_is_no_row(redis_url: str) -> None:
    async def check() -> None:
        async with on_redis(redis_url) as (store, write):
            first, second = list(ROWS)[:2]
            write({second: ROWS[second]})
            with redis.Redis.from_url(redis_url) as client:
                client.lpush(first, "a list")
            assert await read(store, [first, second]) == [None, ROWS[second]]

    asyncio.run(check())


def test_deletion_expiry_and_flushing_are_noticed(redis_url: str) -> None:
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


def test_the_first_reader_finds_a_connection(redis_url: str) -> None:
    async def check() -> None:
        async with on_redis(redis_url) as (store, write), following(store):
            write(ROWS)
            with redis.Redis.from_url(redis_url) as client:
                before = client.info("stats")["total_connections_received"]
                assert await read(store, list(ROWS)) == list(ROWS.values())
                assert client.info("stats")["total_connections_received"] == before

    asyncio.run(check())


def test_keys_of_others_are_not_reported(redis_url: str) -> None:
    async def check() -> None:
        async with on_redis(redis_url) as (store, write), following(store) as reported:
            write({"someone:else": b"1"})
            write({next(iter(ROWS)): b"ours, written later"})
            await soon(lambda: bool(reported))
            assert reported == [next(iter(ROWS))]

    asyncio.run(check())


def test_a_lost_connection_is_noticed_and_made_again(redis_server: Redis) -> None:
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


@pytest.mark.parametrize("refused", ["-client", "resetchannels"])
def test_a_server_that_does_not_report_changes_is_asked_again(
    redis_server: Redis, refused: str
) -> None:
    async def check() -> None:
        with redis_server.client() as client:
            command: Any = client.execute_command
            command("ACL", "SETUSER", "feed", "on", ">pw", "~mr:*", "&*", "+@all", refused)
            url = f"redis://feed:pw@{redis_server.address}/0"
            store = RedisStore(url, timeout_s=10.0)
            async with following(store, tracked=False):
                tries = client.info("stats")["total_connections_received"]
                await soon(lambda: client.info("stats")["total_connections_received"] > tries + 6)
                assert not store.tracked
                assert store.generation == 0  # nothing was believed that long, nothing is lost
                command("ACL", "SETUSER", "feed", "+@all", "&*")
                await soon(lambda: store.tracked)
                assert store.generation == 1
            await store.close()

    asyncio.run(check())


@pytest.mark.parametrize("kind", ["pubsub", "normal"])
def test_a_connection_that_is_cut_off_is_noticed(redis_server: Redis, kind: str) -> None:
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


def test_following_ends_whenever_it_is_asked_to(redis_url: str) -> None:
    """redis-py may lose a cancellation that comes while it connects: asked again, it ends."""

    async def check() -> None:
        for step in range(150):
            store = RedisStore(redis_url, timeout_s=10.0)
            source = FeatureSource(store, 1.0, {"": "defaults"}, 1 << 16, 1.0, 0.0, Metrics())
            source.start()
            await asyncio.sleep(step * 60e-6)
            await asyncio.wait_for(source.close(), timeout=10.0)

    asyncio.run(check())
