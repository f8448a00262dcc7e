"""What a feature store is to the service: rows by key, and word of what has changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol


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

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The row of each key, or None; raises FeatureStoreUnavailable. It ends by itself."""

    async def follow(self, changed: Callable[[Iterable[str]], None]) -> None:
        """Call `changed` with the keys that are written, until cancelled."""

    async def ping(self) -> None:
        """Raise FeatureStoreUnavailable unless the store can be read."""

    async def close(self) -> None:
        """Give back what the store holds."""
