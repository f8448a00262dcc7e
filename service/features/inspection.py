"""Looking at rows in Redis: one of them, or what there is of an entity."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any, cast

import numpy as np

from bundle.packing import NO_VALUE, PADDING
from bundle.rows import Decoded, Slot
from bundle.schema import Categorical, Entity, IdList
from service.features.deployment import Client
from service.features.feature_set import FeatureSet
from service.features.keys import NAMESPACE

_SAMPLE_ROWS = 1_000


def inspect_row(
    client: Client, feature_set: FeatureSet, entity: Entity, entity_id: str
) -> dict[str, Any]:
    """One row, decoded: its key, its state, when it was written, and its values.

    Returns:
        `state` is found, not_found, foreign_layout or corrupt; `features` has numbers as they are,
        texts as the 16 hexadecimal digits of their hashes, and null for "no value".
    """
    layout = feature_set.layout(entity)
    key = feature_set.prefix(entity) + entity_id
    stored = _stored(client, key)
    decoded = layout.decode([stored])
    about: dict[str, Any] = {"key": key, "state": _state(stored, decoded)}
    if decoded.found[0]:
        (row,) = decoded.rows
        about["written"] = _time(int(row["written"]))
        about["age_s"] = round(time.time() - int(row["written"]) / 1000, 3)
        about["features"] = {name: _value(slot, row) for name, slot in layout.slots.items()}
    return about


def inspect_rows(client: Client, feature_set: FeatureSet, entity: Entity) -> dict[str, Any]:
    """How many rows of an entity there are; of the first thousand met, state, memory and age."""
    layout, prefix = feature_set.layout(entity), feature_set.prefix(entity)
    others = prefix.rpartition(":")[0].rpartition(":")[0]
    keys = list(islice(_scan(client, prefix), _SAMPLE_ROWS))
    rows = sum(1 for _ in _scan(client, prefix)) if len(keys) == _SAMPLE_ROWS else len(keys)
    stored = [_stored(client, key) for key in keys]
    decoded = layout.decode(stored)
    states = [_state(each, decoded, n) for n, each in enumerate(stored)]
    memory = [client.memory_usage(key) or 0 for key in keys]
    written = decoded.rows["written"][decoded.found]
    return {
        "feature_set": feature_set.name,
        "entity": entity,
        "keys": f"{prefix}*",
        "rows": rows,
        "rows_of_other_layouts": sum(1 for _ in _scan(client, f"{others}:")) - rows,
        "row_bytes": layout.dtype.itemsize,
        "bytes_in_redis": round(sum(memory) / max(len(memory), 1) * rows),
        "sampled": {state: states.count(state) for state in sorted(set(states))},
        "oldest": _time(int(written.min())) if len(written) else None,
        "newest": _time(int(written.max())) if len(written) else None,
    }


def _scan(client: Client, prefix: str) -> Iterator[bytes]:
    assert prefix.startswith(NAMESPACE)
    return cast("Iterator[bytes]", client.scan_iter(f"{prefix}*", count=1000))


def _stored(client: Client, key: str | bytes) -> bytes | None:
    (found,) = cast("list[bytes | None]", client.mget([key]))  # as the service: a list is no row
    return found


def _state(stored: bytes | None, decoded: Decoded, row: int = 0) -> str:
    if stored is None:
        return "not_found"
    if decoded.found[row]:
        return "found"
    return "foreign_layout" if decoded.foreign[row] else "corrupt"


def _value(slot: Slot, row: np.void) -> Any:
    if isinstance(slot.feature, Categorical | IdList):
        hashes = [int(each) for each in row["hashes"][slot.columns]]
        if hashes[0] == NO_VALUE:
            return None
        texts = [f"{each:016x}" for each in hashes if each != PADDING]
        return texts if isinstance(slot.feature, IdList) else texts[0]
    numbers = [None if np.isnan(each) else float(each) for each in row["numbers"][slot.columns]]
    return numbers[0] if slot.width == 1 else numbers


def _time(written_ms: int) -> str:
    return dt.datetime.fromtimestamp(written_ms / 1000, dt.UTC).isoformat(timespec="milliseconds")
