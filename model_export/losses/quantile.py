"""Quantile (pinball) loss: the score is a quantile of the label given the features.

Koenker and Bassett, "Regression Quantiles", Econometrica 46, 1978; with e = y - f:

    max(tau e, (tau - 1) e)
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field

from model_export.losses.base import RegressionLoss


class Quantile(RegressionLoss):
    """`tau` = 0.5 is the median, 0.9 what nine of ten labels stay below."""

    name: Literal["quantile"]
    tau: Annotated[float, Field(gt=0, lt=1)]

    def per_row(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        error = labels - logits
        return torch.maximum(self.tau * error, (self.tau - 1) * error)
