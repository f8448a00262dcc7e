"""What has changed in Redis, by its own word: CLIENT TRACKING in broadcasting mode.

Each server, and each primary of a Cluster, reports every write under `mr:` within a round trip, to
a connection that listens. While any of those connections is down, nothing is tracked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, cast

import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ClusterError

from service.features.cluster import slots_of
from service.features.deployment import Address, Deployment
from service.features.keys import NAMESPACE
from service.features.tasks import end

log = logging.getLogger(__name__)

Changed = Callable[[Iterable[str]], None]

_INVALIDATIONS = "__redis__:invalidate"
_HEARTBEAT_S = 0.25
_RECONNECT_S = 0.25
_LOOK_AROUND_S = 1.0


class Tracking:
    """Follows the changes of a deployment.

    Args:
        options: of redis-py's connections.

    Attributes:
        tracked: whether every change is being reported.
        generation: counted up whenever changes may have been missed.
    """

    def __init__(self, deployment: Deployment, options: dict[str, Any]) -> None:
        self._deployment = deployment
        # RESP2: invalidations come as messages of a channel, on a connection of their own.
        # No retry: a connection made again in silence would not be tracked.
        self._options = {**options, "protocol": 2, "retry": Retry(NoBackoff(), 0)}
        self._silent: set[Address | None] = set()
        self.tracked = False
        self.generation = 0

    async def follow(self, changed: Changed) -> None:
        """Report written keys to `changed`; begin anew when a connection is lost."""
        refused = ""
        while True:
            try:
                await self._listen_everywhere(changed)
            # RuntimeError is uvloop's word for a connection that ends as it is made
            except (redis.RedisError, OSError, TimeoutError, RuntimeError) as error:
                if str(error) != refused:
                    log.warning("redis does not report changes: %s", error)
                    refused = str(error)
            finally:
                if self.tracked:  # else no row was believed for longer than it is untracked
                    self.generation += 1
                self.tracked = False
            await asyncio.sleep(_RECONNECT_S)

    async def _listen_everywhere(self, changed: Changed) -> None:
        if self._deployment.kind != "cluster":
            self._silent = {None}
            await self._listen(None, changed)
            return
        primaries = await self._primaries()
        self._silent = {*primaries}
        await _together(
            *(self._listen(address, changed) for address in primaries), self._watch(primaries)
        )

    async def _listen(self, address: Address | None, changed: Changed) -> None:
        client = self._deployment.async_node(address, **self._options)
        async with client, client.client() as tracker, client.pubsub() as listener:
            await listener.connect()
            connection = listener.connection
            await connection.send_command("CLIENT", "ID")
            listener_id = await connection.read_response()
            await listener.subscribe(_INVALIDATIONS)
            if await listener.get_message(timeout=self._options["socket_timeout"]) is None:
                raise TimeoutError("the subscription is not confirmed")
            tracking = ("ON", "REDIRECT", listener_id, "BCAST", "PREFIX", NAMESPACE)
            await cast("Any", tracker).execute_command("CLIENT", "TRACKING", *tracking)
            self._silent.discard(address)
            self.generation += 1  # what was cached before is of unknown age
            self.tracked = not self._silent
            log.info("redis reports changes")
            await _together(self._relay(listener, changed), _beat(tracker, listener))

    async def _relay(self, listener: Any, changed: Changed) -> None:
        silent_beats = 0
        while silent_beats < 4:
            message = await listener.get_message(timeout=_HEARTBEAT_S)
            silent_beats = 0 if message is not None else silent_beats + 1
            if message is None or message["type"] != "message":
                continue
            if message["data"] is None:  # FLUSHALL, FLUSHDB
                self.generation += 1
            else:
                changed(key.decode("utf-8", "surrogateescape") for key in message["data"])
        raise TimeoutError("the listening connection is silent")

    async def _primaries(self) -> frozenset[Address]:
        slots = await slots_of(self._deployment, self._options)
        return frozenset(slots.primaries.values())

    async def _watch(self, primaries: frozenset[Address]) -> None:
        while True:
            await asyncio.sleep(_LOOK_AROUND_S)
            if await self._primaries() != primaries:
                raise ClusterError("the Cluster's primaries are others now")


async def _beat(tracker: Any, listener: Any) -> None:
    """Notice at once when either connection is lost, also when it is lost in silence."""
    while True:
        await tracker.ping()
        await listener.ping()
        await asyncio.sleep(_HEARTBEAT_S)


async def _together(*work: Awaitable[None]) -> None:
    """Run all until one ends, which ends the others; none of them ends but by an error."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        await end(tasks)
