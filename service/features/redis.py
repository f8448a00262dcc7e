"""Feature rows in Redis: one MGET a request, and the server's own word on what has changed.

Every write under `mr:` is reported by Redis to this process within a round trip (CLIENT TRACKING
in broadcasting mode, redirected to a connection that listens), so in-process rows can be believed.
While that connection is down nothing is believed for longer than `keys.UNTRACKED_TTL_S`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from service.errors import FeatureStoreUnavailable
from service.features.keys import NAMESPACE

log = logging.getLogger(__name__)

_INVALIDATIONS = "__redis__:invalidate"
_HEARTBEAT_S = 0.25
_RECONNECT_S = 0.25
_MAX_CONNECTIONS = 32  # further reads wait for one


class RedisStore:
    """Reads rows from Redis.

    Args:
        url: redis://, rediss:// or unix://, as redis-py takes it.
        timeout_s: longest a socket may stay silent, seconds. Reads are never cancelled from
            outside: a cancelled command leaves its answer in the connection for the next caller.
    """

    name = "redis"

    def __init__(self, url: str, timeout_s: float) -> None:
        self._url = url
        self._options: dict[str, Any] = {
            "socket_timeout": timeout_s,
            "socket_connect_timeout": timeout_s,
            "retry": Retry(NoBackoff(), 1),  # once: an idle connection may have been closed
        }
        pool = redis.asyncio.BlockingConnectionPool.from_url(
            url, max_connections=_MAX_CONNECTIONS, timeout=timeout_s, **self._options
        )
        self._client = redis.asyncio.Redis.from_pool(pool)
        self.tracked = False
        self.generation = 0

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The row of each key, or None: one MGET.

        Raises:
            FeatureStoreUnavailable: Redis refused, failed or stayed silent.
        """
        try:
            return cast("list[bytes | None]", await self._client.mget(keys))
        except redis.RedisError as error:
            raise FeatureStoreUnavailable(f"redis: {error}") from error

    async def follow(self, changed: Callable[[Iterable[str]], None]) -> None:
        """Report written keys to `changed`; reconnect when the connection is lost."""
        refused = ""
        while True:
            try:
                await self._listen(changed)
            except (redis.RedisError, OSError, TimeoutError) as error:
                if str(error) != refused:
                    log.warning("redis does not report changes: %s", error)
                    refused = str(error)
            finally:
                self.tracked = False
                self.generation += 1
            await asyncio.sleep(_RECONNECT_S)

    async def _listen(self, changed: Callable[[Iterable[str]], None]) -> None:
        # RESP2: invalidations come as messages of a channel, on a connection of their own.
        # No retry: a connection made again in silence would not be tracked.
        options = {**self._options, "protocol": 2, "retry": Retry(NoBackoff(), 0)}
        client = redis.asyncio.from_url(self._url, **options)
        async with client, client.client() as tracker, client.pubsub() as listener:
            await listener.connect()
            connection = listener.connection
            await connection.send_command("CLIENT", "ID")
            listener_id = await connection.read_response()
            await listener.subscribe(_INVALIDATIONS)
            tracking = ("ON", "REDIRECT", listener_id, "BCAST", "PREFIX", NAMESPACE)
            await cast("Any", tracker).execute_command("CLIENT", "TRACKING", *tracking)
            self.generation += 1  # what was cached before is of unknown age
            self.tracked = True
            log.info("redis reports changes")
            work = [
                asyncio.ensure_future(_relay(listener, changed, self)),
                asyncio.ensure_future(_beat(tracker, listener)),
            ]
            try:
                await asyncio.gather(*work)
            finally:
                for task in work:
                    task.cancel()
                await asyncio.gather(*work, return_exceptions=True)

    async def ping(self) -> None:
        """Raise FeatureStoreUnavailable unless Redis answers."""
        try:
            await self._client.ping()
        except redis.RedisError as error:
            raise FeatureStoreUnavailable(f"redis: {error}") from error

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()


async def _relay(
    listener: Any, changed: Callable[[Iterable[str]], None], store: RedisStore
) -> None:
    silent_beats = 0
    while silent_beats < 4:
        message = await listener.get_message(timeout=_HEARTBEAT_S)
        silent_beats = 0 if message is not None else silent_beats + 1
        if message is None or message["type"] != "message":
            continue
        if message["data"] is None:  # FLUSHALL, FLUSHDB
            store.generation += 1
        else:
            changed(key.decode("utf-8", "surrogateescape") for key in message["data"])
    raise TimeoutError("the listening connection is silent")


async def _beat(tracker: Any, listener: Any) -> None:
    """Notice at once when either connection is lost, also when it is lost in silence."""
    while True:
        await tracker.ping()
        await listener.ping()
        await asyncio.sleep(_HEARTBEAT_S)


def write_rows(client: redis.Redis, rows: Sequence[tuple[str, bytes]]) -> None:
    """Write rows in one round trip; also for streaming jobs that keep features fresh.

    Args:
        rows: (key, packed row) pairs; see `features.keys.key_prefix` and `bundle.rows.RowLayout`.

    Raises:
        redis.RedisError: nothing may have been written.
    """
    if rows:
        client.mset(dict(rows))
