"""Feature rows in Redis: one MGET a request; of a Cluster GETs, together for each node."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Sequence
from contextlib import suppress
from typing import Any, cast

import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from service.errors import FeatureStoreUnavailable
from service.features.cluster import Slots, slots_of
from service.features.commands import gets, mget
from service.features.deployment import parse_deployment
from service.features.keys import NAMESPACE, keys_of
from service.features.line import Line
from service.features.store import Asked, Node, Places, one_node
from service.features.tracking import Changed, Tracking
from service.values import Keys

_LOST_READS_AT_ONCE = 32  # that redis-py looks after; a connection to each node each

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
        self._deployment = parse_deployment(url)
        self._options: dict[str, Any] = {
            "socket_timeout": timeout_s,
            "socket_connect_timeout": timeout_s,
            "retry": Retry(NoBackoff(), 1),  # once: an idle connection may have been closed
        }
        self._timeout_s = timeout_s
        self._client = self._deployment.async_client(**self._options, protocol=2)
        self._lines: dict[Node, Line] = {}
        self._slots: Slots | None = None  # of a Cluster, once they are known
        if isinstance(self._client, redis.asyncio.Redis):
            self._lines[""] = Line(self._client, timeout_s)
        self._turns = asyncio.Semaphore(_LOST_READS_AT_ONCE)
        self._tracking = Tracking(self._deployment, self._options)

    @property
    def tracked(self) -> bool:
        """Whether changes are being reported right now."""
        return self._tracking.tracked

    @property
    def generation(self) -> int:
        """Counted up whenever any row may have changed without a report."""
        return self._tracking.generation

    @property
    def nodes(self) -> Collection[Node]:
        """The primaries of a Cluster by name; "" while they are not known."""
        return ("",) if self._slots is None else self._slots.primaries

    def nodes_of(self, prefix: str, ids: Keys) -> Sequence[tuple[Node, Places]]:
        """The nodes of a Cluster that have the keys; "" while they are not known."""
        return one_node() if self._slots is None else self._slots.nodes_of(prefix, ids)

    def get_many(self, asked: Sequence[Asked], node: Node = "") -> Awaitable[list[bytes | None]]:
        """The row of each key, or None.

        Raises:
            FeatureStoreUnavailable: Redis refused, failed or stayed silent.
        """
        if self._deployment.kind != "cluster":
            return _or_unavailable(self._lines[""].ask(mget(asked)))
        if not node:
            return _or_unavailable(self._follow_slots(asked))
        if node not in self._lines:
            assert self._slots is not None
            address = self._slots.primaries[node]
            client = self._deployment.async_node(address, **self._options, protocol=2)
            self._lines[node] = Line(client, self._timeout_s)
        return _or_unavailable(self._of_node(asked, self._lines[node].ask(gets(asked))))

    async def _of_node(
        self, asked: Sequence[Asked], answer: Awaitable[list[bytes | None]]
    ) -> list[bytes | None]:
        try:
            return await answer
        except redis.ResponseError:  # these slots are another's now
            return await self._follow_slots(asked)
        except _FAILURES:  # another may have taken its place
            self._slots = await slots_of(self._deployment, self._options)
            raise

    async def _follow_slots(self, asked: Sequence[Asked]) -> list[bytes | None]:
        """Let redis-py find out where keys are; from then on it is known here."""
        assert isinstance(self._client, redis.asyncio.RedisCluster)
        keys = [key for each in asked for key in keys_of(*each)]
        async with self._turns:
            blobs = await self._client.mget_nonatomic(keys)
        self._slots = await slots_of(self._deployment, self._options)
        return cast("list[bytes | None]", blobs)

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
        for line in self._lines.values():
            await line.close()
        await self._client.aclose()


async def _or_unavailable(answer: Awaitable[list[bytes | None]]) -> list[bytes | None]:
    try:
        return await answer
    except _FAILURES as error:
        raise FeatureStoreUnavailable(f"redis: {error}") from error


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
