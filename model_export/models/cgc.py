"""CGC: customized gate control, with shared experts and experts of one task alone.

Tang et al., "Progressive Layered Extraction (PLE): A Novel Multi-Task Learning (MTL) Model for
Personalized Recommendations", RecSys 2020, equations 1 to 4:

    g^k = w^k(x) S^k        w^k = softmax(W^k x)        y_k = t^k(g^k)
    S^k = the outputs of task k's own experts, then of the shared experts

PLE (`ple.py`) is several such levels on top of each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from bundle.manifest import Task
from bundle.schema import FeatureSchema
from model_export.models.base import GatedOptions, Layers, Width
from model_export.models.first_layer import FirstLayerModel
from model_export.models.layers import GatedExperts, Towers


class CGCOptions(GatedOptions):
    """Sizes.

    Attributes:
        task_experts: experts of each task.
        shared_experts: experts shared by all tasks.
        expert_layers: layer widths of an expert.
    """

    family: Literal["cgc"]
    task_experts: Width
    shared_experts: Width
    expert_layers: Layers


class CGC(FirstLayerModel):
    """The experts of task 1, of task 2, ..., then the shared ones; a gate for each task.

    The gates have a logit for each expert, those not theirs masked out: the same softmax, in one
    product for all gates.
    """

    def __init__(self, schema: FeatureSchema, tasks: Sequence[Task], options: CGCOptions) -> None:
        streams = expert_streams(len(tasks), options.task_experts, options.shared_experts)
        allowed = allowed_experts(streams, len(tasks), shared_gate=False)
        widths = options.expert_layers
        experts = GatedExperts(
            len(streams), len(tasks), widths, options.dropout, allowed, options.attention_gate
        )
        super().__init__(schema, tasks, options, experts.first_width)
        self.experts = experts
        self.towers = Towers(len(tasks), (widths[-1], *options.tower_layers), options.dropout)

    def logits_from_first(self, first: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.towers(self.experts(first))
        return logits


def expert_streams(tasks: int, task_experts: int, shared_experts: int) -> torch.Tensor:
    """Whose each expert is: int64 [E]; a task's number, or `tasks` for the shared ones."""
    own = torch.arange(tasks).repeat_interleave(task_experts)
    return torch.cat((own, torch.full((shared_experts,), tasks)))


def allowed_experts(streams: torch.Tensor, tasks: int, shared_gate: bool) -> torch.Tensor:
    """Which experts each gate may select: bool [gates, E].

    A task's gate selects over its own and the shared experts; the shared gate, the last one, over
    all.
    """
    gates = torch.arange(tasks + shared_gate).unsqueeze(1)
    return (streams == gates) | (streams == tasks) | (gates == tasks)
