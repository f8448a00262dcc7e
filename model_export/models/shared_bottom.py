"""Shared-bottom: one network for all tasks, and a tower for each.

Caruana, "Multitask Learning", Machine Learning 28, 1997; as equation 1 of Ma et al., "Modeling Task
Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts", KDD 2018:

    y_k = h^k(f(x))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from bundle.manifest import Task
from bundle.schema import FeatureSchema
from model_export.models.base import ArchitectureOptions, Layers
from model_export.models.first_layer import FirstLayerModel
from model_export.models.layers import StackedLayers, Towers


class SharedBottomOptions(ArchitectureOptions):
    """Sizes: `bottom_layers` are the widths of f."""

    family: Literal["shared_bottom"]
    bottom_layers: Layers


class SharedBottom(FirstLayerModel):
    """y_k = h^k(f(x)), equation 1; P is the first width of f."""

    def __init__(
        self, schema: FeatureSchema, tasks: Sequence[Task], options: SharedBottomOptions
    ) -> None:
        widths = options.bottom_layers
        super().__init__(schema, tasks, options, first_width=widths[0])
        self.bottom = StackedLayers(1, widths, options.dropout)
        self.towers = Towers(len(tasks), (widths[-1], *options.tower_layers), options.dropout)

    def logits_from_first(self, first: torch.Tensor) -> torch.Tensor:
        bottom = self.bottom([first])
        logits: torch.Tensor = self.towers(bottom * len(self.task_kinds))
        return logits
