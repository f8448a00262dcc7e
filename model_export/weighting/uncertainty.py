"""Uncertainty weighting: each task's noise is learnt with the network.

Kendall et al., "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and
Semantics", CVPR 2018, equation 7, with s_t = log sigma_t^2 as its section 3.2 trains it:

    sum_t 1/2 exp(-s_t) L_t + 1/2 s_t

For a constant loss the minimum is at sigma_t^2 = L_t. The formula is torchjd's. A task without a
row in the batch leaves its s_t as it is.
"""

from __future__ import annotations

from typing import Literal

import torch
from torchjd.scalarization import UW

from model_export.weighting.base import Step, Weighting, WeightingOptions


class UncertaintyOptions(WeightingOptions):
    """Nothing to choose: all s_t start at 0."""

    method: Literal["uncertainty"]


class Uncertainty(Weighting):
    """Equation 7; the weight of a task is 1 / (2 sigma_t^2)."""

    def __init__(self, tasks: int) -> None:
        super().__init__()
        self.objective = UW(tasks)

    def backward(self, step: Step) -> torch.Tensor:
        log_variances = self.objective.log_var
        weights = 0.5 * torch.exp(-log_variances.detach()) * step.defined
        undefined = 0.5 * (log_variances * ~step.defined).sum()  # all that is left of such a task
        torch.autograd.backward(self.objective(step.losses * step.defined) - undefined + step.extra)
        return weights
