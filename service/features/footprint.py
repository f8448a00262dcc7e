"""What rows cost: the memory of a million of them, in process and in Redis, by keeping them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np

from bundle.rows import RowLayout, Rows
from bundle.schema import Entity
from service.features.cache import RowCache, describe
from service.features.deployment import Client
from service.features.feature_set import FeatureSet
from service.features.keys import trial_prefix
from service.features.redis import write_rows

_AT_ONCE = 2_000


def bytes_in_process(feature_set: FeatureSet, entity: Entity, rows: int) -> int:
    """What this process grows by when `rows` rows are in the in-process tier."""
    layout = feature_set.layout(entity)
    before = _resident_bytes()
    cache = RowCache(layout, RowCache.bytes_for(layout, rows))
    for read, (numbers, packed) in enumerate(_made_up(layout, rows), start=1):
        decoded = layout.decode([row.tobytes() for row in packed])
        slots = cache.reserve(numbers, read)
        cache.fill(slots, read, describe(layout, decoded), 0.0, 60.0)
    return _resident_bytes() - before


def bytes_in_redis(client: Client, feature_set: FeatureSet, entity: Entity, rows: int) -> int:
    """What Redis grows by when `rows` rows are in it; they are removed again.

    Raises:
        redis.RedisError: some of them may be left, under `keys.trial_prefix`.
    """
    layout = feature_set.layout(entity)
    prefix = trial_prefix(feature_set.prefix(entity))
    before = _used_memory(client)
    try:
        for numbers, packed in _made_up(layout, rows):
            pairs = zip(numbers.tolist(), packed, strict=True)
            write_rows(client, [(f"{prefix}{n}", row.tobytes()) for n, row in pairs])
        return _used_memory(client) - before
    finally:
        for first in range(0, rows, _AT_ONCE):
            client.unlink(*(f"{prefix}{n}" for n in range(first, min(first + _AT_ONCE, rows))))


def _made_up(layout: RowLayout, rows: int) -> Iterator[tuple[Any, Rows]]:
    """Ids 0 to `rows` and rows full of values, some at a time."""
    rng = np.random.default_rng(0)
    for first in range(0, rows, _AT_ONCE):
        numbers = np.arange(first, min(first + _AT_ONCE, rows))
        packed = layout.empty(len(numbers))
        packed["hashes"] = rng.integers(2, 1 << 62, packed["hashes"].shape)
        packed["numbers"][:, : layout.number_width] = rng.normal(
            size=(len(numbers), layout.number_width)
        )
        yield numbers, layout.seal(packed, 0)


def _used_memory(client: Client) -> int:
    info: Any = cast("Any", client).info("memory")
    nodes = info.values() if "used_memory" not in info else [info]  # a Cluster answers by node
    return sum(int(node["used_memory"]) for node in nodes)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
