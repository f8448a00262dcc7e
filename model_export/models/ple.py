"""PLE: progressive layered extraction, with shared and task-specific experts on several levels.

Tang et al., "Progressive Layered Extraction (PLE): A Novel Multi-Task Learning (MTL) Model for
Personalized Recommendations", RecSys 2020. Level j of task k (equations 5 and 6 of the paper; one
level alone is its CGC, `cgc.py`):

    g^{k,j} = w^{k,j}(g^{k,j-1}) S^{k,j}        w = softmax(W g^{k,j-1})
    S^{k,j} = the outputs of task k's own experts, then of the shared experts, of level j
    y_k     = t^k(g^{k,J})

Task k's experts and gate read g^{k,j-1}; shared experts and the shared gate read the shared
g^{s,j-1}, and the shared gate selects over all experts of the level. At level 1 all read x. The
last level has no shared gate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn

from bundle.manifest import Task
from bundle.schema import FeatureSchema
from model_export.models.attention_gate import AttentionLogits
from model_export.models.base import GatedOptions, Layers, Width
from model_export.models.cgc import allowed_experts, expert_streams
from model_export.models.first_layer import FirstLayerModel
from model_export.models.layers import (
    Gate,
    GatedExperts,
    StackedLayers,
    StackedLinear,
    Towers,
    mix,
)


class PLEOptions(GatedOptions):
    """Sizes.

    Attributes:
        task_experts: experts of each task, on each level.
        shared_experts: experts shared by all tasks, on each level.
        levels: for each level, the layer widths of its experts.
    """

    family: Literal["ple"]
    task_experts: Width
    shared_experts: Width
    levels: Annotated[tuple[Layers, ...], Field(min_length=1)]


class PLE(FirstLayerModel):
    """Streams are the T tasks and then the shared part; experts are ordered by stream."""

    def __init__(self, schema: FeatureSchema, tasks: Sequence[Task], options: PLEOptions) -> None:
        streams = expert_streams(len(tasks), options.task_experts, options.shared_experts)
        allowed = [
            allowed_experts(streams, len(tasks), shared_gate=level + 1 < len(options.levels))
            for level in range(len(options.levels))
        ]
        first = GatedExperts(
            len(streams),
            len(allowed[0]),
            options.levels[0],
            options.dropout,
            allowed[0],
            options.attention_gate,
        )
        super().__init__(schema, tasks, options, first.first_width)
        self.first_level = first
        self.levels = nn.ModuleList(
            _Level(streams, allowed[level], options, level)
            for level in range(1, len(options.levels))
        )
        last_width = options.levels[-1][-1]
        self.towers = Towers(len(tasks), (last_width, *options.tower_layers), options.dropout)

    def logits_from_first(self, first: torch.Tensor) -> torch.Tensor:
        streams = self.first_level(first)
        for level in self.levels:
            streams = level(streams)
        logits: torch.Tensor = self.towers(streams)
        return logits


class _Level(nn.Module):
    """A level above the first: an input [N, in] for each stream -> an output for each gate."""

    def __init__(
        self,
        streams: torch.Tensor,
        allowed: torch.Tensor,
        options: PLEOptions,
        level: int,
    ) -> None:
        super().__init__()
        in_width, widths = options.levels[level - 1][-1], options.levels[level]
        self.streams: list[int] = streams.tolist()
        self.gates = len(allowed)
        self.first = StackedLinear(len(streams), in_width, widths[0])
        self.experts = StackedLayers(len(streams), widths, options.dropout)
        self.gate_logits = (
            AttentionLogits(len(allowed), widths[-1], options.attention_gate)
            if options.attention_gate
            else StackedLinear(len(allowed), in_width, len(streams))
        )
        self.gate = Gate(allowed)

    def forward(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        experts = self.experts(self.first([inputs[stream] for stream in self.streams]))
        if isinstance(self.gate_logits, AttentionLogits):
            logits = self.gate_logits(experts)
        else:
            logits = torch.stack(self.gate_logits(inputs[: self.gates]), dim=1)
        return mix(self.gate(logits), experts)
