"""AITM: information handed along a sequence of tasks, each deciding how much of it to use.

Xi et al., "Modeling the Sequential Dependence among Audience Multi-step Conversions with Multi-task
Learning in Targeted Display Advertising", KDD 2021, section 3. Tasks are declared in their order
(click, application, activation, ...). Over shared embeddings, task t has a network q_t = f_t(x):

    z_1 = q_1        p_{t-1} = g_{t-1}(z_{t-1})        z_t = AIT(p_{t-1}, q_t)        y_t = h^t(z_t)
    AIT: z = sum over u in {p, q} of w_u h_1(u)        w = softmax(<h_2(u), h_3(u)> / sqrt(k))

g is a linear layer with ReLU; h_1, h_2, h_3 are linear layers of width k, each step its own.

The behavioral expectation calibrator keeps a later step from being likelier than the one before:

    L_lc = mean over rows of sum over t >= 2 of max(y_t - y_{t-1}, 0), times `calibrator_weight`

It is taken between consecutive binary tasks, and is right only where a step's label is over all
impressions (`entire_space`): a probability once clicked may well be above that of the click.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn

from bundle.manifest import Task
from bundle.schema import FeatureSchema
from model_export.models.base import ArchitectureOptions, Layers
from model_export.models.first_layer import FirstLayerModel
from model_export.models.layers import StackedLayers, Towers


class AITMOptions(ArchitectureOptions):
    """Sizes.

    Attributes:
        task_layers: layer widths of each f_t; the last one is k.
        calibrator_weight: alpha of the paper, which took 0.6; 0 leaves the calibrator out.
    """

    family: Literal["aitm"]
    task_layers: Layers
    calibrator_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.6


class AITM(FirstLayerModel):
    """T networks, a transfer from each to the next, T towers."""

    def __init__(self, schema: FeatureSchema, tasks: Sequence[Task], options: AITMOptions) -> None:
        widths = options.task_layers
        super().__init__(schema, tasks, options, first_width=len(tasks) * widths[0])
        self.networks = StackedLayers(len(tasks), widths, options.dropout)
        self.transfers = nn.ModuleList(Transfer(widths[-1]) for _ in tasks[1:])
        self.towers = Towers(len(tasks), (widths[-1], *options.tower_layers), options.dropout)
        self.calibrator_weight = options.calibrator_weight
        self.steps = [
            (earlier, later)
            for earlier, later in pairwise(range(len(tasks)))
            if self.task_kinds[earlier] == self.task_kinds[later] == "binary"
        ]
        self._last_logits: torch.Tensor | None = None

    def logits_from_first(self, first: torch.Tensor) -> torch.Tensor:
        z, *others = self.networks(first.chunk(len(self.task_kinds), dim=1))
        zs = [z]
        for transfer, q in zip(self.transfers, others, strict=True):
            zs.append(transfer(zs[-1], q))
        logits: torch.Tensor = self.towers(zs)
        return logits

    def task_logits(self, towers: torch.Tensor) -> torch.Tensor:
        self._last_logits = towers if self.training else None
        return towers

    def extra_losses(self) -> Mapping[str, torch.Tensor]:
        if self._last_logits is None or not self.steps or not self.calibrator_weight:
            return super().extra_losses()
        y = torch.sigmoid(self._last_logits)
        excess = [torch.relu(y[:, later] - y[:, earlier]) for earlier, later in self.steps]
        loss = torch.stack(excess).sum(dim=0).mean() * self.calibrator_weight
        return {**super().extra_losses(), "calibrator": loss}


class Transfer(nn.Module):
    """One step: what the task before knows, and what this one has found itself -> z [N, k]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.information = nn.Linear(width, width)
        self.value, self.key, self.query = (nn.Linear(width, width) for _ in range(3))

    def forward(self, before: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        """z_{t-1} and q_t, float32 [N, k] each -> z_t float32 [N, k]."""
        us = torch.stack((torch.relu(self.information(before)), own), dim=1)
        scores = (self.key(us) * self.query(us)).sum(dim=-1, keepdim=True)
        weights = torch.softmax(scores / math.sqrt(own.shape[1]), dim=1)
        z: torch.Tensor = (weights * self.value(us)).sum(dim=1)
        return z
