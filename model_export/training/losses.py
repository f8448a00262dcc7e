"""Losses of each task, taken only where the task is defined."""

from __future__ import annotations

import torch
from torch.nn import functional


def task_losses(
    logits: torch.Tensor, labels: torch.Tensor, masks: torch.Tensor, is_binary: torch.Tensor
) -> torch.Tensor:
    """Mean loss of each task over its defined rows; 0 for a task defined nowhere in the batch.

    Binary cross-entropy of the logit, computed without overflow, for binary tasks; squared error of
    the standardised label for regression.

    Args:
        logits, labels: float32 [N, T]; regression labels standardised.
        masks: bool [N, T], where the task is defined.
        is_binary: bool [T].

    Returns:
        float32 [T].
    """
    # Masked rows are cut off before the loss, so that nothing of them is in it or in its gradient.
    logits, labels = (torch.where(masks, x, torch.zeros_like(x)) for x in (logits, labels))
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    squared_error = (logits - labels) ** 2
    losses = torch.where(is_binary, cross_entropy, squared_error) * masks
    return losses.sum(dim=0) / masks.sum(dim=0).clamp(min=1)
