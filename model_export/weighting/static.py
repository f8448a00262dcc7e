"""Static weights: the sum of the losses, each times its `loss_weight`."""

from __future__ import annotations

from typing import Literal

import torch

from model_export.weighting.base import LossWeighting, Step, WeightingOptions


class StaticOptions(WeightingOptions):
    """Nothing to choose: the weights are the tasks' own `loss_weight`."""

    method: Literal["static"] = "static"


class Static(LossWeighting):
    """w_t = 1 for all tasks."""

    def weights(self, step: Step) -> torch.Tensor:
        return torch.ones_like(step.losses)
