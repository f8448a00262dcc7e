"""DWA: dynamic weight average, by how fast each task's loss falls from epoch to epoch.

Liu et al., "End-to-End Multi-Task Learning with Attention", CVPR 2019, equation 7; L_t(e) the mean
loss of task t over epoch e:

    w_t(e) = L_t(e-1) / L_t(e-2)        lambda(e) = T softmax(w(e) / temperature)

Weights are 1 in the first two epochs. torchjd has DWA too, but averages over batches, where a task
defined in few rows of some would count wrongly, and keeps its history out of a checkpoint.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field

from model_export.weighting.base import LossWeighting, Step, WeightingOptions


class DWAOptions(WeightingOptions):
    """`temperature`: larger is more even; the paper uses 2."""

    method: Literal["dwa"]
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 2.0


class DWA(LossWeighting):
    """Equation 7."""

    history: torch.Tensor
    epochs: torch.Tensor

    def __init__(self, tasks: int, options: DWAOptions) -> None:
        super().__init__()
        self.temperature = options.temperature
        self.register_buffer("history", torch.zeros(2, tasks))
        self.register_buffer("epochs", torch.zeros((), dtype=torch.int64))

    def weights(self, step: Step) -> torch.Tensor:
        if self.epochs < 2:
            return torch.ones_like(step.losses)
        before, last = self.history
        # A task without a loss in either epoch falls at the rate of one that stands still.
        rates = torch.where((before > 0) & (last > 0), last / before, torch.ones_like(last))
        return len(rates) * torch.softmax(rates / self.temperature, dim=0)

    def end_epoch(self, losses: torch.Tensor) -> None:
        self.history.copy_(torch.stack((self.history[1], losses.to(self.history))))
        self.epochs += 1
