"""Writing features from a streaming job: `from multirank.features import FeatureWriter`.

    with FeatureWriter.of_model("redis://localhost:6379/0", Path("models"), "movielens") as writer:
        writer.write("item", [{"item_id": "242", "year": 1997, "genres": ["Comedy"]}])

Every worker of the service uses a written row within a second.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from bundle import store
from service.features.deployment import parse_deployment
from service.features.feature_set import FeatureSet
from service.features.keys import id_of
from service.features.redis import write_rows


class FeatureWriter:
    """Writes rows of a feature set into Redis. For one thread; keeps its connections open.

    Args:
        redis_url: as MULTIRANK_REDIS_URL.

    Raises:
        service.features.deployment.DeploymentInvalid: the URL is none.
    """

    def __init__(self, redis_url: str, feature_set: FeatureSet) -> None:
        self._client = parse_deployment(redis_url).client()
        self._feature_set = feature_set
        self._layouts = {entity: feature_set.layout(entity) for entity in ("user", "item")}
        self._prefixes = {entity: feature_set.prefix(entity) for entity in ("user", "item")}

    @classmethod
    def of_model(cls, redis_url: str, models: Path, model: str, version: int = 0) -> Self:
        """A writer of the rows that a published version reads; of the newest one without `version`.

        Raises:
            bundle.errors.BundleError: there is no such version, or it does not verify.
        """
        bundle = store.load_version(models, model, version or None)
        return cls(redis_url, FeatureSet.of_bundle(bundle))

    def write(self, entity: Literal["user", "item"], rows: Sequence[Mapping[str, Any]]) -> None:
        """Write whole rows in one round trip; a feature that a row does not give has no value.

        Args:
            rows: feature name -> raw value, and the id in the id column of the feature set (as
                `multirank features load` has it); other names are an error.

        Raises:
            bundle.errors.ValueRejected: a value or an id does not fit, with the row; nothing was
                written.
            redis.RedisError: some may not have been written: write them again.
        """
        key, layout = self._feature_set.ids[entity], self._layouts[entity]
        ids = [id_of(row.get(key), key, n) for n, row in enumerate(rows)]
        names = dict.fromkeys(name for row in rows for name in row)
        given = [name for name in names if name != key or name in layout.slots]
        packed = layout.pack({name: [row.get(name) for row in rows] for name in given}, len(rows))
        layout.seal(packed, time.time_ns() // 1_000_000)
        prefix = self._prefixes[entity]
        keys = (f"{prefix}{entity_id}" for entity_id in ids)
        blobs = (row.tobytes() for row in packed)
        write_rows(self._client, list(zip(keys, blobs, strict=True)))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
