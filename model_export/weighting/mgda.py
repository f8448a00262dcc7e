"""MGDA: the shortest vector between the tasks' gradients, along which no loss rises.

Désidéri, "Multiple-gradient Descent Algorithm (MGDA) for Multiobjective Optimization", Comptes
Rendus Mathématique 350, 2012; Sener and Koltun, "Multi-Task Learning as Multi-Objective
Optimization", NeurIPS 2018, equation 3, solved by its algorithm 2 (Frank-Wolfe) in torchjd:

    min_a |sum_t a_t g_t|^2        a_t >= 0, sum_t a_t = 1
"""

from __future__ import annotations

from typing import Literal

import torch
from torchjd.aggregation import MGDAWeighting

from model_export.weighting.base import WeightingOptions
from model_export.weighting.gradients import GradientWeighting


class MGDAOptions(WeightingOptions):
    """Nothing to choose."""

    method: Literal["mgda"]


class MGDA(GradientWeighting):
    """Equation 3."""

    def __init__(self) -> None:
        super().__init__()
        self.solver = MGDAWeighting()

    def gradient_weights(self, gramian: torch.Tensor) -> torch.Tensor:
        weights: torch.Tensor = self.solver(gramian)
        return weights
