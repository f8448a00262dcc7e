"""Reads of the store under way: an id is read once, however many requests wait for it.

A read is never cancelled: an abandoned command would leave its answer in the connection, and the
next caller would get another id's row. It lands in the in-process tier, in time or late.

What several nodes have is read from all at once, each by a read of its own with a circuit of its
own: a node that is down takes no rows of the others with it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Sequence
from functools import partial

import numpy as np

from bundle.rows import Decoded
from bundle.schema import Entity
from service.errors import FeatureStoreUnavailable
from service.features.breaker import STATES, CircuitBreaker, State
from service.features.cache import NO_READ, Outcome, describe
from service.features.keys import UNTRACKED_TTL_S
from service.features.read import Part, Read, Share, repeats, share_of_repeats
from service.features.store import FeatureStore, Node
from service.features.wanted import Wanted
from service.metrics import Metrics

log = logging.getLogger(__name__)


class Reads:
    """Starts reads, lets requests join those under way, and puts into the cache what they bring.

    Args:
        ttl_s: how long a row is believed while the store reports changes, seconds.
        late_s: a read that takes longer counts against the store, seconds.
    """

    def __init__(self, store: FeatureStore, ttl_s: float, late_s: float, metrics: Metrics) -> None:
        self._store = store
        self._ttl_s = ttl_s
        self._late_s = late_s
        self._metrics = metrics
        self._breakers: dict[Node, CircuitBreaker] = {}
        stored: tuple[Entity, Entity] = ("user", "item")
        self._counters = {
            (entity, outcome): metrics.feature_rows.labels(entity, outcome.name.lower())
            for entity in stored
            for outcome in Outcome
        }
        self._show_circuit("closed")
        self._last_number = NO_READ
        self._under_way: dict[int, Read] = {}
        self._landed: list[Read] = []
        self._unfinished: set[asyncio.Task[None]] = set()

    async def complete(self, wanted: Sequence[Wanted], budget_s: float) -> str:
        """Fill in the rows that are not in process, as far as the store gives them in time.

        Returns:
            Why rows are missing: "", "circuit_open", "timeout" or "unavailable".
        """
        new: dict[Node, Read] = {}
        shares: list[Share] = []
        for each in wanted:
            if len(each.places):
                self._share(each, new, shares)
        started = [self._start(read) for read in new.values() if self._breaker(read.node).admits()]
        tasks = set(started)
        for share in shares:
            read = share.read
            if read.task is not None and self._breaker(read.node).state == "closed":
                tasks.add(read.task)
        pending = set[asyncio.Task[None]]()
        if tasks:
            _, pending = await asyncio.wait(tasks, timeout=max(budget_s, 0.0))
        failure = ""
        for share in shares:
            failure = self._settle(share, share.read.task in tasks, pending) or failure
        return failure

    def _settle(self, share: Share, waited: bool, pending: set[asyncio.Task[None]]) -> str:
        """Hand over what has come of a share; why it has not."""
        read = share.read
        if read.task is None or not waited:
            return "circuit_open"
        if read.task in pending:
            self._note_late(read)
            return "timeout"
        read.task.result()  # what is not the store's failure is ours: let it be heard
        if read.failure is not None:
            return "unavailable"
        share.wanted.fill(share.places, share.part.take(share.rows))
        return ""

    def _share(self, wanted: Wanted, new: dict[Node, Read], shares: list[Share]) -> None:
        """Divide what is wanted between reads under way and new ones."""
        places, slots = wanted.places, wanted.slots
        if self._under_way:
            left = np.ones(len(places), bool)
            numbers = wanted.cache.reads_of(slots)
            for number in np.unique(numbers).tolist():
                read = self._under_way.get(number)
                if read is None:
                    continue
                mine = numbers == number
                left &= ~mine
                part = read.parts[wanted.prefix]
                part.shared = True
                shares.append(Share(read, part, part.find(slots[mine]), wanted, places[mine]))
            if not left.any():
                return
            places = places[left]
        again = repeats(wanted.ids(places))
        repeated = places[again]
        if len(again):
            places = np.delete(places, again)
        for node, there in self._store.nodes_of(wanted.prefix, wanted.ids(places)):
            read = new.get(node)
            if read is None:
                self._last_number += 1
                read = new[node] = Read(self._last_number, node, self._store.generation)
            at = places[there]
            part = read.parts[wanted.prefix] = Part(wanted, wanted.ids(at))
            shares.append(Share(read, part, None, wanted, at))
            if len(repeated):
                shares.append(share_of_repeats(read, part, wanted, repeated))

    def _start(self, read: Read) -> asyncio.Task[None]:
        answer = self._store.get_many(
            [(part.prefix, part.ids) for part in read.parts.values()], read.node
        )
        # the rest is done while the store is at work
        read.task = asyncio.ensure_future(self._land(read, answer))
        self._unfinished.add(read.task)
        read.task.add_done_callback(partial(self._ended, read))
        self._under_way[read.number] = read
        for part in read.parts.values():
            part.slots = part.cache.reserve(part.ids, read.number)
        return read.task

    def _ended(self, read: Read, task: asyncio.Task[None]) -> None:
        self._unfinished.discard(task)
        self._landed.append(read)
        loop = task.get_loop()
        loop.call_soon(loop.call_soon, self.keep)  # those who wait for it go on first

    async def _land(self, read: Read, answer: Awaitable[list[bytes | None]]) -> None:
        """Wait for the rows; those who want them have them when this ends."""
        try:
            blobs = await answer
        except FeatureStoreUnavailable as error:
            read.failure = error
            self._breaker(read.node).failed()
            log.warning("features are missing: %s", error.detail)
            return
        self._breaker(read.node).succeeded()
        start = 0
        for part in read.parts.values():
            part.decoded = part.cache.layout.decode(blobs[start : start + len(part.ids)])
            part.rows = describe(part.cache.layout, part.decoded)
            start += len(part.ids)

    def keep(self) -> None:
        """Put what has landed into the cache; to be called before anyone looks there."""
        landed, self._landed = self._landed, []
        for read in landed:
            self._under_way.pop(read.number, None)
            believed = read.generation == self._store.generation
            ttl_s = (self._ttl_s if self._store.tracked else UNTRACKED_TTL_S) if believed else 0.0
            for part in read.parts.values():
                if part.rows is None or part.decoded is None:
                    part.cache.release(part.slots, read.number)
                    continue
                part.cache.fill(part.slots, read.number, part.rows, read.started, ttl_s)
                self._count(part.cache.layout.entity, part.decoded)
        # of nodes that have no rows any more nobody asks whether they are back
        if len(self._breakers) > 1 and (gone := self._breakers.keys() - set(self._store.nodes)):
            for node in gone:
                del self._breakers[node]
            self._show_circuit("closed")

    def _note_late(self, read: Read) -> None:
        if not read.late and time.monotonic() - read.started >= self._late_s:
            read.late = True
            self._breaker(read.node).failed()

    def all_changed(self) -> None:
        """Any row may have changed: nobody joins the reads under way, nor believes them."""
        self._under_way.clear()

    async def finish(self) -> None:
        """Wait for the reads under way."""
        if self._unfinished:
            await asyncio.wait(self._unfinished)

    def _count(self, entity: Entity, decoded: Decoded) -> None:
        found = int(decoded.found.sum())
        outcomes = {Outcome.FOUND: found}
        if found < len(decoded.found):
            outcomes[Outcome.FOREIGN_LAYOUT] = int(decoded.foreign.sum())
            outcomes[Outcome.CORRUPT] = int(decoded.corrupt.sum())
            outcomes[Outcome.NOT_FOUND] = len(decoded.found) - sum(outcomes.values())
        for outcome, count in outcomes.items():
            if count:
                self._counters[entity, outcome].inc(count)

    def _breaker(self, node: Node) -> CircuitBreaker:
        breaker = self._breakers.get(node)
        if breaker is None:
            name = f"{self._store.name} {node}".strip()
            breaker = self._breakers[node] = CircuitBreaker(name, self._show_circuit)
        return breaker

    def _show_circuit(self, changed: State) -> None:
        """Show the worst of the circuits."""
        worst = max((changed, *(each.state for each in self._breakers.values())), key=STATES.index)
        for each in STATES:
            self._metrics.feature_circuit.labels(each).set(each == worst)
