"""Feature rows in Redis: one MGET a request, MSET in pipelines for loading."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from service.errors import FeatureStoreUnavailable


class RedisStore:
    """Reads rows from Redis.

    Args:
        url: redis://, rediss:// or unix://, as redis-py takes it.
        timeout_s: longest a socket may stay silent, seconds. Reads are never cancelled from
            outside: a cancelled command leaves its answer in the connection for the next caller.
    """

    name = "redis"

    def __init__(self, url: str, timeout_s: float) -> None:
        self._client = redis.asyncio.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 1),  # once: an idle connection may have been closed
        )

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The row of each key, or None: one MGET.

        Raises:
            FeatureStoreUnavailable: Redis refused, failed or stayed silent.
        """
        try:
            return cast("list[bytes | None]", await self._client.mget(keys))
        except redis.RedisError as error:
            raise FeatureStoreUnavailable(f"redis: {error}") from error

    async def ping(self) -> None:
        """Raise FeatureStoreUnavailable unless Redis answers."""
        try:
            await self._client.ping()
        except redis.RedisError as error:
            raise FeatureStoreUnavailable(f"redis: {error}") from error

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()


def write_rows(client: redis.Redis, rows: Sequence[tuple[str, bytes]]) -> None:
    """Write rows in one round trip; also for streaming jobs that keep features fresh.

    Args:
        rows: (key, packed row) pairs; see `features.keys.row_key` and `bundle.rows.RowLayout`.

    Raises:
        redis.RedisError: nothing may have been written.
    """
    if rows:
        client.mset(dict(rows))
