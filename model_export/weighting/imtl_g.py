"""IMTL-G: the combination whose projection on every task's gradient is the same.

Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021, the section on gradient balance; by
torchjd, which also takes linearly dependent gradients:

    g . g_1 / |g_1| = g . g_t / |g_t| for all t,  g = sum_t a_t g_t,  sum_t a_t = 1
"""

from __future__ import annotations

from typing import Literal

import torch
from torchjd.aggregation import IMTLGWeighting

from model_export.weighting.base import WeightingOptions
from model_export.weighting.gradients import GradientWeighting


class IMTLGOptions(WeightingOptions):
    """Nothing to choose."""

    method: Literal["imtl_g"]


class IMTLG(GradientWeighting):
    """Gradient balance."""

    def __init__(self) -> None:
        super().__init__()
        self.solver = IMTLGWeighting()

    def gradient_weights(self, gramian: torch.Tensor) -> torch.Tensor:
        weights: torch.Tensor = self.solver(gramian)
        return weights
