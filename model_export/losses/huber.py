"""Huber loss: squared near the label, linear far from it, so that outliers do not rule.

Huber, "Robust Estimation of a Location Parameter", Annals of Mathematical Statistics 35, 1964; with
e = |y - f| in deviations of the training labels:

    e^2 / 2 where e <= delta        delta (e - delta / 2) elsewhere
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch.nn import functional

from model_export.losses.base import RegressionLoss


class Huber(RegressionLoss):
    """`delta` is in deviations of the training labels."""

    name: Literal["huber"]
    delta: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0

    def per_row(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return functional.huber_loss(logits, labels, reduction="none", delta=self.delta)
