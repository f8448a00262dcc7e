"""Aligned-MTL: the gradients' principal components, brought to one scale before they are summed.

Senushkin et al., "Independent Component Alignment for Multi-Task Learning", CVPR 2023, algorithm 1:
with the Gramian G = V diag(l) V^T, the weights are B 1 / T. By torchjd.

    B = sqrt(l_min) V diag(1 / sqrt(l)) V^T
"""

from __future__ import annotations

from typing import Literal

import torch
from torchjd.aggregation import AlignedMTLWeighting

from model_export.weighting.base import WeightingOptions
from model_export.weighting.gradients import GradientWeighting


class AlignedMTLOptions(WeightingOptions):
    """Nothing to choose."""

    method: Literal["aligned_mtl"]


class AlignedMTL(GradientWeighting):
    """Algorithm 1."""

    def __init__(self) -> None:
        super().__init__()
        self.solver = AlignedMTLWeighting()

    def gradient_weights(self, gramian: torch.Tensor) -> torch.Tensor:
        weights: torch.Tensor = self.solver(gramian)
        return weights
