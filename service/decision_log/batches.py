"""One record a request: decisions -> record batches of one model version's file.

Columns of every file: `request_id`, `time`, `model`, `version`, `user_id`, `item_ids`, `given`
(JSON: what the request itself brought), `rows.user`, `rows.context`, `rows.item` (packed rows as
they were encoded), `score.<task>` in the order of the items, `degraded` (JSON); of /rank also
`fused`, `order` (positions, best first), `fusion`, `fusion_version`, `fusion_rule`,
`fusion_weights`.
The file's metadata holds the feature schema, which says what lies where in a packed row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from bundle.manifest import Manifest
from bundle.rows import Rows
from bundle.schema import ENTITIES, Entity
from service.values import Query, Ranked, Scored

METADATA = b"multirank.decisions"
FORMAT = 1
_ID_BYTES = 100
"""About what an item's id and scores occupy, as Python objects."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A request and its answer, as they were handed over; nothing is copied.

    Attributes:
        at_us: microseconds since the epoch.
        rows: the packed rows that were encoded: one user, one context, N items.
    """

    at_us: int
    query: Query
    scored: Scored
    ranked: Ranked | None
    rows: Mapping[Entity, Rows]
    manifest: Manifest

    @property
    def bytes(self) -> int:
        """About how much memory it keeps."""
        return sum(rows.nbytes for rows in self.rows.values()) + _ID_BYTES * len(self.rows["item"])


def schema_of(manifest: Manifest) -> pa.Schema:
    """The columns of a version's files."""
    names = {"request_id": pa.string(), "time": pa.timestamp("us", tz="UTC")}
    names |= {"model": pa.string(), "version": pa.int32()}
    names |= {"user_id": pa.string(), "item_ids": pa.list_(pa.string()), "given": pa.string()}
    names |= {f"rows.{entity}": pa.binary() for entity in ENTITIES}
    names |= {f"score.{task}": pa.list_(pa.float32()) for task in manifest.task_names}
    names |= {"fused": pa.list_(pa.float64()), "order": pa.list_(pa.int32())}
    names |= {name: pa.string() for name in ("fusion", "fusion_version", "fusion_rule")}
    names |= {"fusion_weights": pa.map_(pa.string(), pa.float64()), "degraded": pa.string()}
    described = {
        "format": FORMAT,
        "tasks": manifest.task_names,
        "features": manifest.features.model_dump(mode="json"),
    }
    return pa.schema(list(names.items()), {METADATA: json.dumps(described).encode()})


def batch_of(decisions: Sequence[Decision], schema: pa.Schema) -> pa.RecordBatch:
    """A batch of decisions, all of the version that the schema is of.

    Raises:
        TypeError, ValueError, pyarrow.ArrowException: a value that has no place in its column.
    """
    columns: dict[str, Any] = {
        "request_id": [each.query.request_id for each in decisions],
        "time": [each.at_us for each in decisions],
        "model": [each.scored.model for each in decisions],
        "version": [each.scored.version for each in decisions],
        "user_id": [each.query.user_key for each in decisions],
        "item_ids": [list(map(str, each.scored.item_ids)) for each in decisions],
        "given": [_given(each.query) for each in decisions],
        "degraded": [_degraded(each.scored) for each in decisions],
    }
    for entity in ENTITIES:
        columns[f"rows.{entity}"] = [each.rows[entity].tobytes() for each in decisions]
    for position, task in enumerate(decisions[0].scored.tasks):
        columns[f"score.{task}"] = [each.scored.scores[:, position] for each in decisions]
    ranked = [each.ranked for each in decisions]
    columns |= {
        "fused": [each and each.fused for each in ranked],
        "order": [None if each is None else each.order.astype(np.int32) for each in ranked],
        "fusion": [each and each.fusion_name for each in ranked],
        "fusion_version": [each and each.fusion_version for each in ranked],
        "fusion_rule": [each and each.fusion_rule for each in ranked],
        "fusion_weights": [each and list(each.fusion_weights.items()) for each in ranked],
    }
    arrays = [pa.array(columns[field.name], field.type) for field in schema]
    return pa.record_batch(arrays, schema=schema)


def _given(query: Query) -> str:
    given = {
        "user": query.user_features,
        "context": query.context,
        "items": query.item_features,
        "fusion": asdict(query.fusion),
        "top_k": query.top_k,
    }
    return orjson.dumps(given, option=orjson.OPT_SERIALIZE_NUMPY).decode()


def _degraded(scored: Scored) -> str | None:
    return json.dumps(asdict(scored.degraded)) if scored.degraded else None
