"""What a feature store is to the service: rows by key, and word of what has changed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from service.values import Keys

Asked = tuple[str, Keys]
"""The prefix of some keys (`keys.py`), and the ids that follow it."""

Places = npt.NDArray[np.int64] | slice

Node = str
"""One of the servers that rows are on, as logs call it; "" where there is only one."""


def one_node() -> Sequence[tuple[Node, Places]]:
    """`FeatureStore.nodes_of` where there is only one."""
    return (("", slice(None)),)


class FeatureStore(Protocol):
    """Where rows are kept."""

    @property
    def name(self) -> str:
        """What answers and metrics call it."""

    @property
    def tracked(self) -> bool:
        """Whether changes are being reported right now."""

    @property
    def generation(self) -> int:
        """Counted up whenever any row may have changed without a report."""

    @property
    def nodes(self) -> Collection[Node]:
        """Those that rows are on now."""

    def nodes_of(self, prefix: str, ids: Keys) -> Sequence[tuple[Node, Places]]:
        """Which node has which of the keys: nodes, and the places of their keys."""

    def get_many(self, asked: Sequence[Asked], node: Node) -> Awaitable[list[bytes | None]]:
        """The row of each key in the order asked, or None; raises FeatureStoreUnavailable.

        It ends by itself, and is asked for at once, before it is awaited, where that is possible.
        """

    async def follow(self, changed: Callable[[Iterable[str]], None]) -> None:
        """Call `changed` with the keys that are written, until cancelled."""

    async def ping(self) -> None:
        """Raise FeatureStoreUnavailable unless the store can be read."""

    async def close(self) -> None:
        """Give back what the store holds."""
