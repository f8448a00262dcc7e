"""Focal loss: rows that are already right count less.

Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, equations 4 and 5; with p_t the
probability given to the true class:

    FL(p_t) = -alpha_t (1 - p_t)^gamma log(p_t)

Its minimum is not the true probability unless gamma = 0 and alpha = 1/2: the ranking is sound, the
served number is not calibrated. Cross-entropy, or a calibration after it, where that matters.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch.nn import functional

from model_export.losses.base import BinaryLoss


class Focal(BinaryLoss):
    """Equation 5.

    Attributes:
        gamma: how strongly easy rows are played down; 0 is cross-entropy.
        alpha: weight of positive rows, 1 - alpha of negative ones; equation 4 (none) when left out.
    """

    name: Literal["focal"]
    gamma: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 2.0
    alpha: Annotated[float, Field(gt=0, lt=1)] | None = None

    def per_row(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        entropy = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        # 1 - p_t is the probability of the wrong class, exact where p_t rounds to 1.
        wrong = torch.sigmoid(torch.where(labels > 0.5, -logits, logits))
        losses = wrong**self.gamma * entropy
        if self.alpha is None:
            return losses
        return losses * torch.where(labels > 0.5, self.alpha, 1 - self.alpha)
