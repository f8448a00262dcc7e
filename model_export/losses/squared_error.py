"""Squared error of the standardised label: (y - f)^2; its minimum is the mean."""

from __future__ import annotations

from typing import Literal

import torch

from model_export.losses.base import RegressionLoss


class SquaredError(RegressionLoss):
    """The default of regression tasks."""

    name: Literal["squared_error"] = "squared_error"

    def per_row(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return (logits - labels) ** 2
