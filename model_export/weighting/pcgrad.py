"""PCGrad: a gradient loses the part that points against another task's.

Yu et al., "Gradient Surgery for Multi-Task Learning", NeurIPS 2020, algorithm 1; for each task i
and the others j in random order, while g_i . g_j < 0, and the sum of all g_i in the end:

    g_i <- g_i - (g_i . g_j) / |g_j|^2 g_j
"""

from __future__ import annotations

from typing import Literal

import torch
from torchjd.aggregation import PCGradWeighting

from model_export.weighting.base import WeightingOptions
from model_export.weighting.gradients import GradientWeighting


class PCGradOptions(WeightingOptions):
    """Nothing to choose."""

    method: Literal["pcgrad"]


class PCGrad(GradientWeighting):
    """Algorithm 1, by torchjd; the order is drawn from torch's generator."""

    def __init__(self) -> None:
        super().__init__()
        self.surgery = PCGradWeighting()

    def gradient_weights(self, gramian: torch.Tensor) -> torch.Tensor:
        weights: torch.Tensor = self.surgery(gramian)
        return weights
