"""Weighted logistic regression: expected watch time from the odds of a click.

Covington et al., "Deep Neural Networks for YouTube Recommendations", RecSys 2016, section 4.2. Rows
that were watched (label > 0) are positives of weight T_i, the time watched; rows that were not
(label 0) are negatives of weight 1. The odds learnt are sum(T_i) / (N - k) with k watched of N
rows, which is E[T] (1 + P) for a small probability P of a click: the expected watch time. It is
served as the paper serves it, exp(logit).

Times are divided by their mean over the watched training rows, so that the loss is of the same size
whatever the unit, and the score multiplied by it.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from model_export.losses.base import Labels, Score, TaskKind, TaskLoss


class WeightedLogistic(TaskLoss):
    """Section 4.2; labels are times, 0 where nothing was watched."""

    name: Literal["weighted_logistic"]
    kind: ClassVar[TaskKind] = "regression"
    score: ClassVar[Score] = "exponential"

    def per_row(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        watched = labels * functional.softplus(-logits)
        return torch.where(labels > 0, watched, functional.softplus(logits))

    def scale(self, labels: Labels) -> tuple[float, float]:
        watched = labels[labels > 0]
        return 0.0, float(watched.mean(dtype=np.float64)) if len(watched) else 1.0

    def wrong(self, labels: Labels) -> npt.NDArray[np.bool_]:
        return ~np.isfinite(labels) | (labels < 0)
