"""CAGrad: near the mean gradient, the direction that serves the worst task best.

Liu et al., "Conflict-Averse Gradient Descent for Multi-task Learning", NeurIPS 2021, algorithm 1,
g_0 being the mean gradient; solved in its dual form by torchjd, which calls cvxpy at every step:

    max_d min_t g_t . d        |d - g_0| <= c |g_0|
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torchjd.aggregation import CAGradWeighting

from model_export.weighting.base import WeightingOptions
from model_export.weighting.gradients import GradientWeighting


class CAGradOptions(WeightingOptions):
    """`c`: how far from the mean gradient; 0 is the mean, the paper uses 0.2 to 0.5."""

    method: Literal["cagrad"]
    c: Annotated[float, Field(ge=0, lt=1)] = 0.4


class CAGrad(GradientWeighting):
    """Algorithm 1."""

    def __init__(self, options: CAGradOptions) -> None:
        super().__init__()
        self.solver = CAGradWeighting(c=options.c)

    def gradient_weights(self, gramian: torch.Tensor) -> torch.Tensor:
        weights: torch.Tensor = self.solver(gramian)
        return weights
