"""MMoE: multi-gate mixture of experts.

Ma et al., "Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts",
KDD 2018, equations 6 to 8:

    f^k(x) = sum_i g^k(x)_i f_i(x)        g^k(x) = softmax(W_gk x)        y_k = h^k(f^k(x))
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


class MMoEOptions(GatedOptions):
    """Sizes: `experts` networks f_i with layers of these widths."""

    family: Literal["mmoe"]
    experts: Width
    expert_layers: Layers


class MMoE(FirstLayerModel):
    """Equations 6 to 8; a gate for each task."""

    def __init__(self, schema: FeatureSchema, tasks: Sequence[Task], options: MMoEOptions) -> None:
        widths = options.expert_layers
        mixture = GatedExperts(
            options.experts, len(tasks), widths, options.dropout, key_width=options.attention_gate
        )
        super().__init__(schema, tasks, options, mixture.first_width)
        self.mixture = mixture
        self.towers = Towers(len(tasks), (widths[-1], *options.tower_layers), options.dropout)

    def logits_from_first(self, first: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.towers(self.mixture(first))
        return logits
