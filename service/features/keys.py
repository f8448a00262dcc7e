"""The keys of a feature store, and how long rows are believed.

    mr:<feature set>:<entity>:<layout>:<id>        ->   one packed row (bundle/rows.py)
    mr:.load:<feature set>:<entity>:<layout>:<file>  ->  how far a file of them is loaded

The layout's digest is part of the key, so that two model versions that read different features
of the same entity each find their own rows, before, during and after a swap or a roll-back.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from bundle.errors import ValueRejected
from bundle.rows import RowLayout
from bundle.schema import Entity
from service.values import MAX_ID_LENGTH, Keys

NAMESPACE = "mr:"
"""What every key begins with."""

UNTRACKED_TTL_S = 0.5
"""How long a row is believed in process while the store does not report changes, seconds.

While it does: MULTIRANK_FEATURE_TTL_S, or a tenth less, drawn for each row. Once it is no longer
believed, a row may serve while the store fails, until MULTIRANK_FEATURE_STALE_S after it was read.
That an id has no row is believed for as long. In Redis itself rows do not expire.
"""


@lru_cache(256)
def key_prefix(feature_set: str, layout: RowLayout) -> str:
    """Everything of a row's key but the id; the key is the prefix followed by the id."""
    return f"{entity_prefix(feature_set, layout.entity)}{int(layout.digest):016x}:"


def entity_prefix(feature_set: str, entity: Entity) -> str:
    """What the keys of an entity's rows begin with, whatever their layout."""
    return f"{NAMESPACE}{feature_set}:{entity}:"


def keys_of(prefix: str, ids: Keys) -> list[str]:
    """The keys of rows."""
    return [f"{prefix}{each}" for each in (ids.tolist() if isinstance(ids, np.ndarray) else ids)]


def id_of(value: Any, column: str, row: int | None = None) -> str:
    """The id that a row gives, as a key has it; raises ValueRejected where no request names it."""
    if value is None or value == "":
        raise ValueRejected(column, row, "has no id")
    if isinstance(value, bool | np.bool_) or not isinstance(value, str | int | np.integer):
        kind = type(value).__name__
        raise ValueRejected(column, row, f"an id is a string or an integer, got {kind}")
    text = str(value)
    if len(text) > MAX_ID_LENGTH:
        reason = f"an id has {MAX_ID_LENGTH} characters at most, got {len(text)}"
        raise ValueRejected(column, row, reason)
    return text


def checkpoint_key(prefix: str, file: str) -> str:
    """The key of a file's checkpoint; no feature set's name begins with a full stop."""
    return f"{NAMESPACE}.load:{prefix.removeprefix(NAMESPACE)}{file}"


def trial_prefix(prefix: str) -> str:
    """A prefix of the same kind under which no feature set has rows."""
    return f"{NAMESPACE}.{prefix.removeprefix(NAMESPACE)}"


def split_key(key: str) -> tuple[str, str]:
    """A row's key -> its prefix and its id; an id may hold any character."""
    parts = key.split(":", 4)
    return ":".join(parts[:4]) + ":", parts[-1]
