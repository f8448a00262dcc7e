"""Task chaining: a task's prediction is an input of the towers of all later tasks.

After Read et al., "Classifier Chains for Multi-label Classification", ECML PKDD 2009, over a shared
bottom: tower k, in the order in which tasks are declared, reads

    y_k = h^k(f(x), p_1, ..., p_{k-1})

p_j is task j's prediction as the towers give it: a probability of a binary task, the standardised
value of a regression task; before any position bias. The paper chains labels in training; here it
is predictions in training as in serving, so that both see the same distribution.

With `stop_gradient` a later task learns from an earlier one's prediction and cannot change it;
without, the later task's loss also trains the earlier tower.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from bundle.manifest import Task
from bundle.schema import FeatureSchema
from model_export.models.base import ArchitectureOptions, Layers
from model_export.models.first_layer import FirstLayerModel
from model_export.models.layers import StackedLayers, Towers


class TaskChainOptions(ArchitectureOptions):
    """Sizes: `bottom_layers` are the widths of f; and whether later losses stop at predictions."""

    family: Literal["task_chain"]
    bottom_layers: Layers
    stop_gradient: bool


class TaskChain(FirstLayerModel):
    """A shared bottom, and towers that read the predictions before them."""

    def __init__(
        self, schema: FeatureSchema, tasks: Sequence[Task], options: TaskChainOptions
    ) -> None:
        widths = options.bottom_layers
        super().__init__(schema, tasks, options, first_width=widths[0])
        self.stop_gradient = options.stop_gradient
        if not self.stop_gradient:  # the towers are then moved by later losses too
            self.task_modules = ("position_bias",)
        self.bottom = StackedLayers(1, widths, options.dropout)
        self.towers = nn.ModuleList(
            Towers(1, (widths[-1] + before, *options.tower_layers), options.dropout)
            for before in range(len(tasks))
        )

    def logits_from_first(self, first: torch.Tensor) -> torch.Tensor:
        bottom = self.bottom([first])
        logits: list[torch.Tensor] = []
        predictions: list[torch.Tensor] = []
        for tower, kind in zip(self.towers, self.task_kinds, strict=True):
            logit = tower([torch.cat((*bottom, *predictions), dim=1)])
            prediction = torch.sigmoid(logit) if kind == "binary" else logit
            predictions.append(prediction.detach() if self.stop_gradient else prediction)
            logits.append(logit)
        return torch.cat(logits, dim=1)
