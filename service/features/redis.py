"""Feature rows in Redis: one MGET a request; of a Cluster one for each slot, nodes in parallel."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from service.errors import FeatureStoreUnavailable
from service.features.deployment import parse_deployment
from service.features.tracking import Changed, Tracking

_READS_AT_ONCE = 32  # further ones wait; a connection each, and of a Cluster one to each node


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
        self._client = deployment.async_client(**options)
        self._turns = asyncio.Semaphore(_READS_AT_ONCE)
        self._tracking = Tracking(deployment, options)

    @property
    def tracked(self) -> bool:
        """Whether changes are being reported right now."""
        return self._tracking.tracked

    @property
    def generation(self) -> int:
        """Counted up whenever any row may have changed without a report."""
        return self._tracking.generation

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The row of each key, or None.

        Raises:
            FeatureStoreUnavailable: Redis refused, failed or stayed silent.
        """
        client = self._client
        try:
            async with self._turns:
                if isinstance(client, redis.asyncio.RedisCluster):
                    blobs = await client.mget_nonatomic(keys) if keys else []
                else:
                    blobs = await client.mget(keys)
        except (redis.RedisError, OSError) as error:
            raise FeatureStoreUnavailable(f"redis: {error}") from error
        return cast("list[bytes | None]", blobs)

    async def follow(self, changed: Changed) -> None:
        """Report written keys to `changed`; reconnect when the connection is lost."""
        await self._tracking.follow(changed)

    async def ping(self) -> None:
        """Raise FeatureStoreUnavailable unless Redis answers."""
        try:
            await cast("Any", self._client).ping()
        except (redis.RedisError, OSError) as error:
            raise FeatureStoreUnavailable(f"redis: {error}") from error

    async def close(self) -> None:
        """Close all connections."""
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
