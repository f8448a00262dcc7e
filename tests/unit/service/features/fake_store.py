"""A feature store that does what a test tells it: wait, fail, change, count."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from bundle.encoding import Encoder
from bundle.schema import Entity
from service.features.keys import key_prefix, keys_of
from service.features.store import Asked, Node, Places, one_node
from service.values import Keys
from tests.unit.bundle.tiny import SCHEMA, VOCABULARIES

FEATURE_SET = "tiny"
LAYOUTS = Encoder(SCHEMA, VOCABULARIES).layouts


def key(entity: Entity, entity_id: str) -> str:
    return key_prefix(FEATURE_SET, LAYOUTS[entity]) + entity_id


def row(entity: Entity, **values: object) -> bytes:
    layout = LAYOUTS[entity]
    packed = layout.pack({name: [value] for name, value in values.items()}, 1)
    return bytes(layout.seal(packed, 1_700_000_000_000)[0].tobytes())


class FakeStore:
    """Rows by key.

    Attributes:
        reads: the keys of each read, in order.
        open: reads wait while it is clear.
        failure: raised by reads when they would answer.
        ended: reads that came to an end, cancelled ones not among them.
    """

    name = "fake"
    nodes: tuple[Node, ...] = ("",)

    def __init__(self, rows: dict[str, bytes] | None = None) -> None:
        self.rows = rows or {}
        self.tracked = True
        self.generation = 0
        self.reads: list[list[str]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.failure: Exception | None = None
        self.ended = 0
        self.closed = False
        self.changed: Callable[[Iterable[str]], None] | None = None

    def nodes_of(self, prefix: str, ids: Keys) -> Sequence[tuple[Node, Places]]:
        return one_node()

    async def get_many(self, asked: Sequence[Asked], node: Node) -> list[bytes | None]:
        keys = [key for prefix, ids in asked for key in keys_of(prefix, ids)]
        self.reads.append(keys)
        found = [self.rows.get(each) for each in keys]
        await self.open.wait()
        self.ended += 1
        if self.failure is not None:
            raise self.failure
        return found

    async def follow(self, changed: Callable[[Iterable[str]], None]) -> None:
        self.changed = changed
        await asyncio.Event().wait()

    async def ping(self) -> None:
        if self.failure is not None:
            raise self.failure

    async def close(self) -> None:
        assert not self.closed
        assert self.ended == len(self.reads), "closed under a read"
        self.closed = True
