"""MoE with one gate (OMoE): a mixture of experts that all tasks share.

The one-gate model of Ma et al., "Modeling Task Relationships in Multi-task Learning with Multi-gate
Mixture-of-Experts", KDD 2018, equation 5 with a tower for each task, after Jacobs et al., "Adaptive
Mixtures of Local Experts", Neural Computation 3, 1991:

    f(x) = sum_i g(x)_i f_i(x)        g(x) = softmax(W_g x)        y_k = h^k(f(x))
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


class MoEOptions(GatedOptions):
    """Sizes: `experts` networks f_i with layers of these widths."""

    family: Literal["moe"]
    experts: Width
    expert_layers: Layers


class MoE(FirstLayerModel):
    """One gate, one mixture, T towers."""

    def __init__(self, schema: FeatureSchema, tasks: Sequence[Task], options: MoEOptions) -> None:
        widths = options.expert_layers
        mixture = GatedExperts(
            options.experts, 1, widths, options.dropout, key_width=options.attention_gate
        )
        super().__init__(schema, tasks, options, mixture.first_width)
        self.mixture = mixture
        self.towers = Towers(len(tasks), (widths[-1], *options.tower_layers), options.dropout)

    def logits_from_first(self, first: torch.Tensor) -> torch.Tensor:
        mixture = self.mixture(first)
        logits: torch.Tensor = self.towers(mixture * len(self.task_kinds))
        return logits
