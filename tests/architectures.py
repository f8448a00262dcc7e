"""Every architecture as an experiment of a few seconds on the synthetic feed."""

from __future__ import annotations

from typing import Any

from model_export import config
from model_export.config import Config
from tests.unit.model_export import experiments

_TASKS = experiments.tiny()["tasks"]
_SPACE_TASKS = [
    {"name": "click", "kind": "binary"},
    {"name": "like", "kind": "binary", "where": "click"},
    {
        "name": "click_and_like",
        "kind": "binary",
        "label": "like",
        "where": "click",
        "entire_space": True,
    },
]
"""Click, conversion once clicked, and both over all impressions."""

_MMOE = {"family": "mmoe", "experts": 2, "expert_layers": [8]}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "aitm": {"family": "aitm", "task_layers": [8]},
    "cgc": {"family": "cgc", "task_experts": 1, "shared_experts": 1, "expert_layers": [8]},
    "cross_stitch": {"family": "cross_stitch", "task_layers": [8, 8]},
    "esmm": {
        "family": "esmm",
        "task_layers": [8],
        "click": "click",
        "conversion": "like",
        "click_and_conversion": "click_and_like",
    },
    "mmoe": _MMOE,
    "mmoe_attention": {**_MMOE, "attention_gate": 4},
    "mmoe_dien": {**_MMOE, "history": {"encoder": "dien", "feature": "history"}},
    "mmoe_din": {**_MMOE, "history": {"encoder": "din", "feature": "history"}},
    "mmoe_position": {**_MMOE, "position_bias": {"positions": 4}},
    "moe": {"family": "moe", "experts": 2, "expert_layers": [8]},
    "ple": {"family": "ple", "task_experts": 1, "shared_experts": 1, "levels": [[8], [8]]},
    "shared_bottom": {"family": "shared_bottom", "bottom_layers": [8]},
    "single_task": {"family": "single_task", "task_layers": [8]},
    "snr_aver": {"family": "snr_aver", "subnetworks": 2, "levels": [[8], [8]]},
    "snr_trans": {"family": "snr_trans", "subnetworks": 2, "levels": [[8], [8]]},
    "task_chain": {"family": "task_chain", "bottom_layers": [8], "stop_gradient": False},
}


def experiment(architecture: str, **changes: object) -> Config:
    """One epoch of an architecture, under its own name; with `changes` to top-level fields."""
    sequence = architecture in ("aitm", "esmm")
    content = experiments.tiny(
        name=architecture,
        model=architecture,
        tasks=_SPACE_TASKS if sequence else _TASKS,
        architecture={"embedding_width": 4, "tower_layers": [4], **ARCHITECTURES[architecture]},
        training={"epochs": 1, "batch_rows": 256, "learning_rate": 0.02},
    )
    return config.parse({**content, **changes}, architecture)
