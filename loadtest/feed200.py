"""`feed200`: the reference workload, made from a fixed seed. Random weights, realistic sizes.

A PLE of 3 binary tasks (2 levels, 2 specific experts a task and 2 shared, 256-128 then 64, towers
of 32, embeddings of width 16) over 1,000 users and 10,000 items:

    user     12 categorical (two of 100,000 values, ten of 1,000), 8 numbers, 50 item ids
    context  4 categorical of 100 values
    item     10 categorical (two of 100,000 values), 6 numbers

It is published as any model is, in three stages; and exported once more undivided, as anyone else
would: one graph, the user's columns repeated for every candidate.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from bundle.encoding import Encoder
from bundle.manifest import Task
from bundle.packing import hash_value
from bundle.rows import RowLayout
from bundle.schema import Categorical, Entity, Feature, FeatureSchema, IdList, Number
from bundle.store import publish
from model_export.data.fit import FittedFeatures
from model_export.data.impressions import EntitySample
from model_export.export import Contents, write_bundle
from model_export.graphs import export_graph
from model_export.models.ple import PLE, PLEOptions
from model_export.training.run_directory import Examples

NAME = "feed200"
USERS, ITEMS = 1_000, 10_000
TASKS = tuple(Task(name=name, kind="binary") for name in ("click", "like", "share"))
FORMULA = "formula: click * (1 + like) * (1 + share)\n"
UNDIVIDED = "undivided.onnx"
UNDIVIDED_INPUTS = ("user_ids", "user_numbers", "item_ids", "item_numbers")
_SEED = 200
_HISTORY = 50
_OPTIONS = PLEOptions(
    family="ple",
    embedding_width=16,
    task_experts=2,
    shared_experts=2,
    levels=((256, 128), (64,)),
    tower_layers=(32,),
)


@dataclass(frozen=True)
class Workload:
    """Where the workload lies: the models directory, and the undivided graph."""

    models: Path
    undivided: Path


def build(directory: Path) -> Workload:
    """Make the workload in `directory`, unless it is there."""
    workload = Workload(directory / "models", directory / UNDIVIDED)
    if workload.undivided.exists():
        return workload
    torch.manual_seed(_SEED)
    schema, sizes = _schema()
    vocabularies = {
        key: np.array([hash_value(value) for value in range(size)], np.uint64)
        for key, size in sizes.items()
    }
    features = FittedFeatures(schema, vocabularies)
    network = PLE(schema, TASKS, _OPTIONS).eval()
    random = np.random.default_rng(_SEED)
    users = _columns(schema, "user", sizes, USERS, random)
    contexts = _columns(schema, "context", sizes, USERS, random)
    items = _columns(schema, "item", sizes, ITEMS, random)
    items["item_id"] = list(range(ITEMS))
    contents = Contents(
        name=NAME,
        family="ple",
        tasks=TASKS,
        features=features,
        network=network,
        examples=Examples(
            users=_pack(schema, "user", users, 8),
            contexts=_pack(schema, "context", contexts, 8),
            items=_pack(schema, "item", items, 300),
        ),
        samples=(
            EntitySample("user", pa.table({"user_id": list(range(USERS)), **users}), "user_id"),
            EntitySample("item", pa.table(items), "item_id"),
        ),
        training={"dataset": f"none: random weights, seed {_SEED}"},
    )
    write_bundle(contents, directory / "bundle")
    publish(directory / "bundle", workload.models)
    fusions = workload.models / NAME / "fusions"
    fusions.mkdir()
    (fusions / "default.yaml").write_text(FORMULA)
    _export_undivided(network, features.encoder(), contents.examples, workload.undivided)
    return workload


def _schema() -> tuple[FeatureSchema, dict[str, int]]:
    features: list[Feature] = []
    sizes: dict[str, int] = {}

    def categorical(entity: Entity, name: str, size: int) -> None:
        features.append(Categorical(name=name, entity=entity, vocabulary_size=size))
        sizes[f"{entity}.{name}"] = size

    for index in range(12):
        categorical("user", f"user_{index}", 100_000 if index < 2 else 1_000)
    features.extend(Number(name=f"user_number_{index}", entity="user") for index in range(8))
    features.append(
        IdList(name="history", entity="user", max_length=_HISTORY, shares="item.item_id")
    )
    categorical("item", "item_id", 100_000)
    for index in range(1, 10):
        categorical("item", f"item_{index}", 100_000 if index < 2 else 1_000)
    features.extend(Number(name=f"item_number_{index}", entity="item") for index in range(6))
    for index in range(4):
        categorical("context", f"context_{index}", 100)
    return FeatureSchema(features=tuple(features)), sizes


def _columns(
    schema: FeatureSchema,
    entity: Entity,
    sizes: dict[str, int],
    rows: int,
    random: np.random.Generator,
) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    for feature in schema.of(entity):
        if isinstance(feature, Categorical):
            columns[feature.name] = random.integers(0, sizes[feature.key], rows).tolist()
        elif isinstance(feature, IdList):
            columns[feature.name] = random.integers(0, ITEMS, (rows, _HISTORY)).tolist()
        else:
            columns[feature.name] = random.normal(size=rows).astype(np.float32).tolist()
    return columns


def _pack(schema: FeatureSchema, entity: Entity, columns: dict[str, list[Any]], rows: int) -> Any:
    first = {name: values[:rows] for name, values in columns.items()}
    return RowLayout(schema, entity).pack(first, rows)


class _Undivided(nn.Module):
    """The whole network as one graph: the first layer over the columns of both sides."""

    def __init__(self, network: PLE) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        user_ids: torch.Tensor,
        user_numbers: torch.Tensor,
        item_ids: torch.Tensor,
        item_numbers: torch.Tensor,
    ) -> torch.Tensor:
        network = self.network
        user = network.user_inputs(user_ids, user_numbers, network.embeddings.part("user"))
        item = network.item_inputs(item_ids, item_numbers, network.embeddings.part("item"))
        first = network.first
        weight = torch.cat((first.user.weight, first.item.weight), dim=1)
        x = nn.functional.linear(torch.cat((user, item), dim=1), weight, first.item.bias)
        return torch.sigmoid(network.logits_from_first(x))


def _export_undivided(network: PLE, encoder: Encoder, examples: Examples, path: Path) -> None:
    users = encoder.user(examples.users, examples.contexts)
    items = encoder.item(examples.items[: len(users)])
    arrays = (users.ids, users.numbers, items.ids, items.numbers)
    inputs = dict(zip(UNDIVIDED_INPUTS, map(torch.from_numpy, arrays), strict=True))
    rows = torch.export.Dim("rows")
    export_graph(
        _Undivided(network), inputs, {name: {0: rows} for name in inputs}, "task_scores", path
    )
