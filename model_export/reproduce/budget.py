"""Architectures of one size: all families within a tenth of the same number of parameters.

What is counted is everything but the embeddings, which all families have alike; only single-task
models have them once for each task, since they share nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter

from bundle.manifest import Task
from bundle.schema import FeatureSchema
from model_export.models import families
from model_export.models.families import AnyOptions
from model_export.models.inputs import EmbeddingTable

TOLERANCE = 0.1

Template = Callable[[int], Mapping[str, Any]]
"""A width -> the options of an architecture whose first layers are so wide."""

TEMPLATES: Mapping[str, Template] = {
    "single_task": lambda w: {"family": "single_task", "task_layers": (w, w // 2)},
    "shared_bottom": lambda w: {"family": "shared_bottom", "bottom_layers": (w, w // 2)},
    "task_chain": lambda w: {
        "family": "task_chain",
        "bottom_layers": (w, w // 2),
        "stop_gradient": False,
    },
    "task_chain_stopped": lambda w: {
        "family": "task_chain",
        "bottom_layers": (w, w // 2),
        "stop_gradient": True,
    },
    "cross_stitch": lambda w: {"family": "cross_stitch", "task_layers": (w, w // 2)},
    "aitm": lambda w: {"family": "aitm", "task_layers": (w, w // 2), "calibrator_weight": 0.0},
    "snr_aver": lambda w: {
        "family": "snr_aver",
        "subnetworks": 4,
        "levels": ((w,), (max(w // 2, 1),)),
    },
    "snr_trans": lambda w: {
        "family": "snr_trans",
        "subnetworks": 4,
        "levels": ((w,), (max(w // 2, 1),)),
    },
    "moe": lambda w: {"family": "moe", "experts": 4, "expert_layers": (w, w // 2)},
    "mmoe": lambda w: {"family": "mmoe", "experts": 4, "expert_layers": (w, w // 2)},
    "mmoe_attention": lambda w: {
        "family": "mmoe",
        "experts": 4,
        "expert_layers": (w, w // 2),
        "attention_gate": 8,
    },
    "cgc": lambda w: {
        "family": "cgc",
        "task_experts": 1,
        "shared_experts": 2,
        "expert_layers": (w, w // 2),
    },
    "ple": lambda w: {
        "family": "ple",
        "task_experts": 1,
        "shared_experts": 2,
        "levels": ((w,), (max(w // 2, 1),)),
    },
}


def sized(
    name: str,
    common: Mapping[str, Any],
    schema: FeatureSchema,
    tasks: Sequence[Task],
    parameters: int,
) -> AnyOptions:
    """The options of an architecture, as wide as comes nearest to a number of parameters.

    Args:
        name: of `TEMPLATES`.
        common: options that all architectures share.
        parameters: without embeddings.

    Raises:
        ValueError: no width comes within a tenth.
    """

    def options(width: int) -> AnyOptions:
        content = {**common, **TEMPLATES[name](width)}
        built: AnyOptions = TypeAdapter(families.Architecture).validate_python(content)
        return built

    low, high = 2, 4
    while counted(options(high), schema, tasks) < parameters:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        if counted(options(middle), schema, tasks) < parameters:
            low = middle
        else:
            high = middle
    found = min(
        (options(width) for width in (low, high)),
        key=lambda one: abs(counted(one, schema, tasks) - parameters),
    )
    if abs(counted(found, schema, tasks) - parameters) > TOLERANCE * parameters:
        raise ValueError(f"{name}: no width gives {parameters} parameters within a tenth")
    return found


def counted(options: AnyOptions, schema: FeatureSchema, tasks: Sequence[Task]) -> int:
    """The parameters of a network but for its embeddings."""
    model = families.build(options, schema, tasks)
    tables = {id(module.weight) for module in model.modules() if isinstance(module, EmbeddingTable)}
    return sum(p.numel() for p in model.parameters() if id(p) not in tables)
