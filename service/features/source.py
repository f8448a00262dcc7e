"""The features stage: ids -> packed rows, in one read of the store, and what was not there.

A store is anything with the four members of `FeatureStore`. Whatever the store does, a request
waits for it no longer than its budget, and its answer says what was missing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from bundle.rows import Decoded, RowLayout, Rows
from bundle.schema import Entity
from service.errors import FeatureStoreUnavailable
from service.features.keys import key_prefix, row_key
from service.metrics import Metrics
from service.values import Id

log = logging.getLogger(__name__)


class FeatureStore(Protocol):
    """Where rows are kept. `name` is what answers and metrics call it."""

    name: str

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The row of each key, or None; raises FeatureStoreUnavailable."""

    async def ping(self) -> None:
        """Raise FeatureStoreUnavailable unless the store can be read."""

    async def close(self) -> None:
        """Give back what the store holds."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """Rows from the store, those not found empty.

    Attributes:
        users: [1] row; items: [N] rows.
        user_found: bool [1]; items_found: bool [N].
        reasons: why rows are missing, when it is not that the store does not know their ids.
    """

    users: Rows
    user_found: npt.NDArray[np.bool_]
    items: Rows
    items_found: npt.NDArray[np.bool_]
    reasons: list[str]


class FeatureSource:
    """Reads the rows of a request.

    Args:
        timeout_s: longest wait for the store in one request, seconds.
        on_failure: "defaults" answers with empty rows and a reason, "error" raises.
    """

    def __init__(
        self,
        store: FeatureStore,
        timeout_s: float,
        on_failure: Literal["defaults", "error"],
        metrics: Metrics,
    ) -> None:
        self.store = store
        self._timeout_s = timeout_s
        self._on_failure = on_failure
        self._metrics = metrics
        self._late: set[asyncio.Task[list[bytes | None]]] = set()

    async def fetch(
        self,
        feature_set: str,
        layouts: dict[Entity, RowLayout],
        user_id: Id | None,
        item_ids: Sequence[Id],
        budget_s: float,
    ) -> Fetched:
        """Fetch the user's and the items' rows in one read.

        Args:
            user_id: None when the request brings the user's features itself.
            budget_s: seconds the request has left.

        Raises:
            FeatureStoreUnavailable: the store failed or was late, and `on_failure` is "error".
        """
        prefix = key_prefix(feature_set, layouts["item"])
        keys = [row_key(prefix, item_id) for item_id in item_ids]
        if user_id is not None:
            keys.append(row_key(key_prefix(feature_set, layouts["user"]), user_id))
        reasons: list[str] = []
        try:
            blobs = await self._read(keys, min(budget_s, self._timeout_s))
        except FeatureStoreUnavailable as error:
            late = isinstance(error.__cause__, TimeoutError)
            reasons.append(f"{self.store.name}_{'timeout' if late else 'unavailable'}")
            self._metrics.feature_failures.labels(reasons[0]).inc()
            if self._on_failure == "error":
                raise
            log.warning("features are missing: %s", error.detail)
            blobs = [None] * len(keys)
        user_blob = blobs.pop() if user_id is not None else None
        users = layouts["user"].decode([user_blob])
        items = layouts["item"].decode(blobs)
        if not reasons:
            asked_users = int(user_id is not None)
            for entity, decoded, asked in (
                ("user", users, asked_users),
                ("item", items, len(blobs)),
            ):
                reasons.extend(self._count(entity, decoded, asked))
        return Fetched(users.rows, users.found, items.rows, items.found, reasons)

    async def _read(self, keys: list[str], budget_s: float) -> list[bytes | None]:
        # A read is waited for, never cancelled: an abandoned command would leave its answer in
        # the connection, and the next caller would get another id's features.
        read = asyncio.ensure_future(self.store.get_many(keys))
        done, _ = await asyncio.wait({read}, timeout=budget_s)
        if not done:
            self._late.add(read)
            read.add_done_callback(self._finish_late)
            late = TimeoutError(f"no answer within {budget_s * 1000:.0f} ms")
            raise FeatureStoreUnavailable(f"{self.store.name}: {late}") from late
        return read.result()

    def _finish_late(self, read: asyncio.Task[list[bytes | None]]) -> None:
        self._late.discard(read)
        if not read.cancelled() and (error := read.exception()) is not None:
            log.warning("a late read of the feature store failed: %s", error)

    def _count(self, entity: str, decoded: Decoded, asked: int) -> list[str]:
        rows = self._metrics.feature_rows
        found = int(decoded.found.sum())
        rows.labels(entity, "found").inc(found)
        if found == asked:
            return []
        reasons = []
        foreign, corrupt = int(decoded.foreign.sum()), int(decoded.corrupt.sum())
        for outcome, count in (
            ("foreign_layout", foreign),
            ("corrupt", corrupt),
            ("not_found", asked - found - foreign - corrupt),
        ):
            if count:
                rows.labels(entity, outcome).inc(count)
                reasons.append(f"{entity}_{outcome}")
        return reasons

    async def close(self) -> None:
        """Let late reads end, then close the store."""
        if self._late:
            await asyncio.wait(self._late)
        await self.store.close()
