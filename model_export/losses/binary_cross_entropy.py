"""Binary cross-entropy of the logit, computed without overflow: -y log p - (1 - y) log(1 - p)."""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional

from model_export.losses.base import BinaryLoss


class BinaryCrossEntropy(BinaryLoss):
    """The default of binary tasks; its minimum is the true probability."""

    name: Literal["binary_cross_entropy"] = "binary_cross_entropy"

    def per_row(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
