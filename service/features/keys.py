"""The keys of a feature store.

    mr:<feature set>:<entity>:<layout>:<id>   ->   one packed row (bundle/rows.py)

The layout's digest is part of the key, so that two model versions that read different features
of the same entity each find their own rows, before, during and after a swap or a roll-back.
"""

from __future__ import annotations

from bundle.rows import RowLayout
from service.values import Id


def key_prefix(feature_set: str, layout: RowLayout) -> str:
    """Everything of a row's key but the id."""
    return f"mr:{feature_set}:{layout.entity}:{int(layout.digest):016x}:"


def row_key(prefix: str, entity_id: Id) -> str:
    """The key of one row; 196 and "196" are the same id."""
    return f"{prefix}{entity_id}"
