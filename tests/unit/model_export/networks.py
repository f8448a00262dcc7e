"""Small networks of every family, over a schema with every kind of feature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter

from bundle.encoding import Encoded, Encoder
from bundle.manifest import Task
from bundle.packing import hash_value
from bundle.rows import Rows
from bundle.schema import (
    Bucketised,
    Categorical,
    DenseVector,
    FeatureSchema,
    IdList,
    Number,
)
from bundle.vocabulary import Vocabularies
from model_export.models import families
from model_export.models.base import MultiTaskModel
from model_export.models.first_layer import FirstLayerModel

SCHEMA = FeatureSchema(
    features=(
        Number(name="age", entity="user", mean=30, std=10),
        IdList(name="history", entity="user", shares="item.item_id", max_length=4),
        Categorical(name="city", entity="user", hash_buckets=7),
        Bucketised(name="hour", entity="context", boundaries=(6, 12, 18)),
        Categorical(name="item_id", entity="item", vocabulary_size=5),
        IdList(name="genres", entity="item", hash_buckets=11, max_length=3),
        Number(name="price", entity="item", mean=5, std=2),
        DenseVector(name="content", entity="item", dimension=3),
    )
)
VOCABULARIES: Vocabularies = {
    "item.item_id": np.array([hash_value(item) for item in "abcde"], np.uint64)
}
TASKS = (
    Task(name="click", kind="binary"),
    Task(name="like", kind="binary"),
    Task(name="watch_seconds", kind="regression"),
)
SPACE_TASKS = tuple(Task(name=name, kind="binary") for name in ("click", "like", "click_and_like"))
"""The tasks of ESMM."""
SIZES = {"embedding_width": 4, "tower_layers": (5,)}
FAMILIES: dict[str, dict[str, Any]] = {
    "shared_bottom": {"family": "shared_bottom", "bottom_layers": (8, 6)},
    "shared_bottom_no_tower": {
        "family": "shared_bottom",
        "bottom_layers": (8,),
        "tower_layers": (),
    },
    "mmoe": {"family": "mmoe", "experts": 4, "expert_layers": (8, 6)},
    "mmoe_one_layer": {"family": "mmoe", "experts": 3, "expert_layers": (8,)},
    "mmoe_position": {
        "family": "mmoe",
        "experts": 3,
        "expert_layers": (8,),
        "position_bias": {"positions": 4},
    },
    "mmoe_attention": {
        "family": "mmoe",
        "experts": 3,
        "expert_layers": (8, 6),
        "attention_gate": 5,
    },
    "shared_bottom_din": {
        "family": "shared_bottom",
        "bottom_layers": (8, 6),
        "history": {"encoder": "din", "feature": "history", "attention_layers": (7, 5)},
    },
    "mmoe_dien": {
        "family": "mmoe",
        "experts": 3,
        "expert_layers": (8,),
        "history": {"encoder": "dien", "feature": "history"},
    },
    "single_task_dien": {
        "family": "single_task",
        "task_layers": (8,),
        "history": {"encoder": "dien", "feature": "history"},
    },
    "moe": {"family": "moe", "experts": 4, "expert_layers": (8, 6)},
    "cgc": {"family": "cgc", "task_experts": 2, "shared_experts": 1, "expert_layers": (8, 6)},
    "ple": {"family": "ple", "task_experts": 1, "shared_experts": 2, "levels": ((8, 6), (5,))},
    "ple_three_levels": {
        "family": "ple",
        "task_experts": 2,
        "shared_experts": 3,
        "levels": ((8,), (6, 4), (5,)),
    },
    "ple_attention": {
        "family": "ple",
        "task_experts": 1,
        "shared_experts": 1,
        "levels": ((8,), (6,)),
        "attention_gate": 3,
    },
    "snr_trans": {"family": "snr_trans", "subnetworks": 3, "levels": ((8,), (6, 5))},
    "snr_aver": {"family": "snr_aver", "subnetworks": 3, "levels": ((8, 6), (5,))},
    "cross_stitch": {"family": "cross_stitch", "task_layers": (8, 6)},
    "esmm": {
        "family": "esmm",
        "task_layers": (8, 6),
        "click": "click",
        "conversion": "like",
        "click_and_conversion": "click_and_like",
    },
    "aitm": {"family": "aitm", "task_layers": (8, 6)},
    "task_chain": {"family": "task_chain", "bottom_layers": (8, 6), "stop_gradient": False},
    "task_chain_stopped": {"family": "task_chain", "bottom_layers": (8,), "stop_gradient": True},
    "single_task": {"family": "single_task", "task_layers": (8, 6)},
}


def tasks_of(family: str) -> tuple[Task, ...]:
    """The three tasks of a family's network."""
    return SPACE_TASKS if family == "esmm" else TASKS


def options(family: str, **sizes: object) -> Any:
    """The options of a family's network, as a configuration would give them."""
    content = {**SIZES, **FAMILIES[family], **sizes}
    return TypeAdapter(families.Architecture).validate_python(content)


def build(
    family: str, schema: FeatureSchema = SCHEMA, seed: int = 0, **sizes: object
) -> MultiTaskModel:
    """A network of the family, in evaluation mode, its regression label scaled."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = families.build(options(family, **sizes), schema, tasks_of(family))
        for name, parameter in model.named_parameters():
            # Biases near zero and small embeddings would hide which input matters.
            torch.nn.init.normal_(parameter, std=0.4 if "bias" not in name else 0.1)
    if "regression" in model.task_kinds:
        labels = np.array([[0, 0, 10], [1, 1, 50]], np.float32)
        model.outputs.fit(list(labels.T))
    return model.eval()


def build_split(family: str, seed: int = 0, **sizes: object) -> FirstLayerModel:
    """The same, of a family that has one first layer."""
    model = build(family, SCHEMA, seed, **sizes)
    assert isinstance(model, FirstLayerModel)
    return model


def users(count: int, seed: int = 0) -> tuple[Rows, Rows]:
    """Packed rows of users and their contexts, some values missing or unknown."""
    rng = np.random.default_rng(seed)
    encoder = Encoder(SCHEMA, VOCABULARIES)
    history = [list(rng.choice(list("abcdexyz"), rng.integers(5))) for _ in range(count)]
    columns: dict[str, Sequence[Any]] = {
        "age": [None if row % 5 == 4 else float(rng.integers(90)) for row in range(count)],
        "history": [None if row % 7 == 3 else ids for row, ids in enumerate(history)],
        "city": [f"city {number}" for number in rng.integers(20, size=count)],
    }
    hours = {"hour": rng.uniform(0, 24, count).tolist()}
    return (
        encoder.layouts["user"].pack(columns, count),
        encoder.layouts["context"].pack(hours, count),
    )


def items(count: int, seed: int = 0) -> Rows:
    """Packed rows of items, some values missing or unknown."""
    rng = np.random.default_rng(seed)
    columns: dict[str, Sequence[Any]] = {
        "item_id": list(rng.choice(list("abcdexyz"), count)),
        "genres": [[f"g{number}" for number in rng.integers(9, size=2)] for _ in range(count)],
        "price": [None if row % 3 == 2 else float(rng.uniform(0, 20)) for row in range(count)],
        "content": rng.normal(size=(count, 3)).tolist(),
    }
    return Encoder(SCHEMA, VOCABULARIES).layouts["item"].pack(columns, count)


def encoded(user_count: int, item_count: int, seed: int = 0) -> tuple[Encoded, Encoded]:
    """The same rows, encoded."""
    encoder = Encoder(SCHEMA, VOCABULARIES)
    return encoder.user(*users(user_count, seed)), encoder.item(items(item_count, seed))


def logits(
    model: MultiTaskModel,
    user: Encoded,
    item: Encoded,
    user_row: np.ndarray[Any, Any],
    positions: np.ndarray[Any, Any] | None = None,
) -> torch.Tensor:
    """The network's logits [N, T] for every item row, by torch."""
    return model.joint_logits(
        model.user_stage(torch.from_numpy(user.ids), torch.from_numpy(user.numbers)),
        model.item_stage(torch.from_numpy(item.ids), torch.from_numpy(item.numbers)),
        torch.from_numpy(np.asarray(user_row, np.int64)),
        None if positions is None else torch.from_numpy(np.asarray(positions, np.int64)),
    )
