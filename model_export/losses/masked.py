"""The losses of a batch: each task's over the rows where it is defined."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from model_export.losses.base import TaskLoss


def task_losses(
    losses: Sequence[TaskLoss],
    logits: torch.Tensor,
    labels: torch.Tensor,
    masks: torch.Tensor,
    negative_weights: Sequence[float],
    counts: torch.Tensor,
) -> torch.Tensor:
    """Mean loss of each task over its defined rows; 0 for a task defined nowhere in the batch.

    Args:
        losses: of the T tasks.
        logits, labels: float32 [N, T]; labels on the losses' own scales.
        masks: bool [N, T], where the task is defined.
        negative_weights: [T], the weight of rows with label 0; 1 leaves them as they are.
        counts: [T], the defined rows to divide by; those of all processes over their number.

    Returns:
        float32 [T].
    """
    # Masked rows are cut off before the loss, so that nothing of them is in it or in its gradient.
    logits, labels = (torch.where(masks, x, torch.zeros_like(x)) for x in (logits, labels))
    sums = []
    for task, (loss, negative_weight) in enumerate(zip(losses, negative_weights, strict=True)):
        rows = loss.per_row(logits[:, task], labels[:, task])
        if negative_weight != 1:
            rows = torch.where(labels[:, task] > 0.5, rows, negative_weight * rows)
        sums.append(torch.where(masks[:, task], rows, torch.zeros_like(rows)).sum())
    return torch.stack(sums) / counts.clamp(min=torch.finfo(torch.float32).tiny)
