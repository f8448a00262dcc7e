"""Cross-stitch networks: a network for each task, their layers linearly combined.

Misra et al., "Cross-stitch Networks for Multi-task Learning", CVPR 2016, equation 1, for T tasks.
After every hidden layer, with x_j the activation of task j's network:

    x~_k = sum_j alpha_kj x_j

There is an alpha for each layer and pair of tasks. They start as a mostly own combination, as the
paper found best: `own_share` of a task's own activation, the rest divided among the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn

from bundle.manifest import Task
from bundle.schema import FeatureSchema
from model_export.models.base import ArchitectureOptions, Layers
from model_export.models.first_layer import FirstLayerModel
from model_export.models.layers import Towers, mix, stacked_linears


class CrossStitchOptions(ArchitectureOptions):
    """Sizes.

    Attributes:
        task_layers: layer widths of each task's network, below its tower.
        own_share: alpha_kk at the start.
    """

    family: Literal["cross_stitch"]
    task_layers: Layers
    own_share: Annotated[float, Field(gt=0, le=1)] = 0.9


class CrossStitch(FirstLayerModel):
    """T networks with a unit after each hidden layer, and T towers."""

    def __init__(
        self, schema: FeatureSchema, tasks: Sequence[Task], options: CrossStitchOptions
    ) -> None:
        widths = options.task_layers
        super().__init__(schema, tasks, options, first_width=len(tasks) * widths[0])
        self.linears = stacked_linears(len(tasks), widths)
        self.units = nn.ModuleList(_Unit(len(tasks), options.own_share) for _ in widths)
        self.dropout = nn.Dropout(options.dropout)
        self.towers = Towers(len(tasks), (widths[-1], *options.tower_layers), options.dropout)

    def logits_from_first(self, first: torch.Tensor) -> torch.Tensor:
        first_unit, *units = self.units
        xs = first_unit(self._activate(first.chunk(len(self.task_kinds), dim=1)))
        for linear, unit in zip(self.linears, units, strict=True):
            xs = unit(self._activate(linear(xs)))
        logits: torch.Tensor = self.towers(xs)
        return logits

    def _activate(self, xs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return [self.dropout(torch.relu(x)) for x in xs]


class _Unit(nn.Module):
    """alpha, float32 [T, T]."""

    def __init__(self, tasks: int, own_share: float) -> None:
        super().__init__()
        others = (1 - own_share) / max(tasks - 1, 1)
        alpha = torch.full((tasks, tasks), others).fill_diagonal_(own_share)
        self.alpha = nn.Parameter(alpha)

    def forward(self, xs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """T activations float32 [N, H] -> T combinations [N, H]."""
        return mix(self.alpha, xs)
