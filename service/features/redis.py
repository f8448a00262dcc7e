"""Feature rows in Redis: one MGET a request; of a Cluster one for each slot, nodes in parallel."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from typing import Any, cast

import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from service.errors import FeatureStoreUnavailable
from service.features.deployment import parse_deployment
from service.features.keys import NAMESPACE, keys_of
from service.features.store import Asked, Node, Places, one_node
from service.features.tracking import Changed, Tracking
from service.features.wire import Answer, Wire
from service.values import Keys

_CLUSTER_READS_AT_ONCE = 32  # further ones wait; a connection to each node each
_FAILURES = (redis.RedisError, OSError, RuntimeError)
"""RuntimeError is uvloop's word for a connection that has ended."""


class RedisStore:
    """Reads rows from Redis.

    Args:
        url: see `deployment`.
        timeout_s: longest a socket may stay silent, seconds. Reads are never cancelled from
            outside: a cancelled command leaves its answer in the connection for the next caller.

    Raises:
        DeploymentInvalid: the URL is none.
    """

    name = "redis"

    def __init__(self, url: str, timeout_s: float) -> None:
        deployment = parse_deployment(url)
        options: dict[str, Any] = {
            "socket_timeout": timeout_s,
            "socket_connect_timeout": timeout_s,
            "retry": Retry(NoBackoff(), 1),  # once: an idle connection may have been closed
        }
        self._client = deployment.async_client(**options, protocol=2)
        self._timeout_s = timeout_s
        self._wire: Wire | None = None
        self._opening = asyncio.Lock()
        self._turns = asyncio.Semaphore(_CLUSTER_READS_AT_ONCE)
        self._tracking = Tracking(deployment, options)

    @property
    def tracked(self) -> bool:
        """Whether changes are being reported right now."""
        return self._tracking.tracked

    @property
    def generation(self) -> int:
        """Counted up whenever any row may have changed without a report."""
        return self._tracking.generation

    def nodes_of(self, prefix: str, ids: Keys) -> Sequence[tuple[Node, Places]]:
        """To a client there is one."""
        return one_node()

    def get_many(self, asked: Sequence[Asked], node: Node = "") -> Awaitable[list[bytes | None]]:
        """The row of each key, or None.

        Raises:
            FeatureStoreUnavailable: Redis refused, failed or stayed silent.
        """
        wire = self._wire
        first = None if wire is None or wire.lost else wire.mget(asked)
        return self._answer(asked, first)

    async def _answer(self, asked: Sequence[Asked], first: Answer | None) -> list[bytes | None]:
        try:
            if not isinstance(self._client, redis.asyncio.Redis):
                keys = [key for each in asked for key in keys_of(*each)]
                async with self._turns:
                    blobs = await self._client.mget_nonatomic(keys)
                    return cast("list[bytes | None]", blobs)
            if first is not None:
                with suppress(redis.ConnectionError):  # it was idle, and may have been closed
                    return await first
            wire = await self._open(self._client)
            return await wire.mget(asked)
        except _FAILURES as error:
            raise FeatureStoreUnavailable(f"redis: {error}") from error

    async def _open(self, client: redis.asyncio.Redis) -> Wire:
        """The connection that reads share; a new one where there is none."""
        async with self._opening:
            if self._wire is not None and self._wire.lost:
                await self._wire.close()
                self._wire = None
            if self._wire is None:
                self._wire = await Wire.open(client.connection_pool, self._timeout_s)
            return self._wire

    async def follow(self, changed: Changed) -> None:
        """Report written keys to `changed`; reconnect when the connection is lost."""
        with suppress(FeatureStoreUnavailable):  # which tracking says as well
            await self.get_many([(NAMESPACE, [""])])  # the first request finds a connection
        await self._tracking.follow(changed)

    async def ping(self) -> None:
        """Raise FeatureStoreUnavailable unless Redis answers."""
        try:
            await cast("Any", self._client).ping()
        except _FAILURES as error:
            raise FeatureStoreUnavailable(f"redis: {error}") from error

    async def close(self) -> None:
        """Close all connections."""
        if self._wire is not None:
            await self._wire.close()
        await self._client.aclose()


def write_rows(client: redis.Redis | redis.RedisCluster, rows: Sequence[tuple[str, bytes]]) -> None:
    """Write rows in one round trip; of a Cluster, in one to each node.

    Args:
        rows: (key, packed row) pairs; see `features.keys.key_prefix` and `bundle.rows.RowLayout`.

    Raises:
        redis.RedisError: some may not have been written.
    """
    if not rows:
        return
    if isinstance(client, redis.RedisCluster):
        client.mset_nonatomic(dict(rows))
    else:
        client.mset(dict(rows))
