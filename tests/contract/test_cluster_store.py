"""What is true of a Cluster alone: rows move from node to node, and nodes are lost one by one."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from service.errors import FeatureStoreUnavailable
from service.features.deployment import parse_deployment
from service.features.source import FeatureSource
from service.features.store import FeatureStore
from service.metrics import Metrics
from tests import redis_deployments
from tests.contract.stores import (
    ROWS,
    following,
    on_redis,
    read,
    soon,
)
from tests.unit.service.features import fake_store
from tests.unit.service.features.fake_store import FEATURE_SET, LAYOUTS


def test_a_slot_that_moves_is_followed(tmp_path: Path) -> None:
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


def test_a_node_that_is_lost_is_noticed(tmp_path: Path) -> None:
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


def test_a_node_that_is_lost_takes_no_rows_of_others_with_it(tmp_path: Path) -> None:
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
        for host, other in others:  # as redis-cli does: a busy node might be long in hearing of it
            if other not in (target_port, str(port)):
                with redis.Redis(host=host, port=int(other)) as node:
                    node.execute_command("CLUSTER", "SETSLOT", slot, "NODE", target_id)
