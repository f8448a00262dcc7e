"""`python -m loadtest.big_table DIRECTORY`: a published model with an embedding table of 1 GiB.

Random weights, a small shared-bottom network. The table is one item feature's, which the user's
history shares, so that both graphs read it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from bundle.encoding import Encoder
from bundle.manifest import Task
from bundle.schema import Categorical, FeatureSchema, IdList, Number
from bundle.store import publish
from model_export.data.fit import FittedFeatures
from model_export.data.impressions import EntitySample
from model_export.export import Contents, write_bundle
from model_export.models.shared_bottom import SharedBottom, SharedBottomOptions
from model_export.training.run_directory import Examples

NAME = "big_table"
ROWS, _WIDTH = 1 << 24, 16
TABLE_BYTES = ROWS * _WIDTH * 4
HISTORY = 50
_USERS = 8
_SCHEMA = FeatureSchema(
    features=(
        Number(name="age", entity="user"),
        IdList(name="history", entity="user", max_length=HISTORY, shares="item.item"),
        Categorical(name="item", entity="item", hash_buckets=ROWS),
        Number(name="price", entity="item"),
    )
)


def build(directory: Path) -> None:
    """Write and publish the model into `directory`/models."""
    torch.manual_seed(0)
    tasks = (Task(name="click", kind="binary"),)
    options = SharedBottomOptions(
        family="shared_bottom", embedding_width=_WIDTH, bottom_layers=(32,)
    )
    random = np.random.default_rng(0)
    users = {
        "age": random.normal(size=_USERS).tolist(),
        "history": random.integers(0, 1 << 40, (_USERS, HISTORY)).tolist(),
    }
    items = {"item": list(range(300)), "price": random.normal(size=300).tolist()}
    features = FittedFeatures(_SCHEMA, {})
    layouts = Encoder(_SCHEMA, {}).layouts
    contents = Contents(
        name=NAME,
        family="shared_bottom",
        tasks=tasks,
        features=features,
        network=SharedBottom(_SCHEMA, tasks, options).eval(),
        examples=Examples(
            users=layouts["user"].pack(users, _USERS),
            contexts=layouts["context"].empty(_USERS),
            items=layouts["item"].pack(items, 300),
        ),
        samples=(
            EntitySample("user", pa.table({"user_id": list(range(_USERS)), **users}), "user_id"),
            EntitySample("item", pa.table({"item_id": list(range(300)), **items}), "item_id"),
        ),
        training={"dataset": "none: random weights"},
    )
    write_bundle(contents, directory / "bundle")
    publish(directory / "bundle", directory / "models")


if __name__ == "__main__":
    build(Path(sys.argv[1]))
