"""GradNorm: weights under which every task trains at a similar rate.

Chen et al., "GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask
Networks", ICML 2018, section 3 and algorithm 1. W being the shared parameters:

    G_t = |w_t grad_W L_t|              r_t = (L_t / L_t(0)) / mean_i (L_i / L_i(0))
    L_grad = sum_t |G_t - mean_i(G_i) r_t^alpha|            (equation 2)

L_grad is minimised in w alone, mean(G) r^alpha being constants; then the weights are scaled to sum
to the number of tasks. The network's step uses the weights from before.

The paper takes the last shared layer for W to save time; here W is all of the shared parameters,
whose gradients are taken task by task anyway. L_t(0) is the loss of the first batch that defines
the task. A task that a batch does not define keeps its weight in that step.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn

from model_export.weighting.base import Step, Weighting, WeightingOptions
from model_export.weighting.gradients import task_gradients

_LEAST_WEIGHT = 1e-3


class GradNormOptions(WeightingOptions):
    """Section 3.

    Attributes:
        alpha: how strongly slow tasks are pulled to the common rate; 0 makes the norms equal.
        learning_rate: of the weights' own Adam; the paper uses 0.025.
    """

    method: Literal["gradnorm"]
    alpha: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.5
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.025


class GradNorm(Weighting):
    """Algorithm 1.

    Attributes:
        task_weights: float32 [T], w; they sum to T and are never below 0.001.
        first_losses: float32 [T], L(0); 0 until the task was seen.
    """

    needs_own_reduction = True
    first_losses: torch.Tensor

    def __init__(self, tasks: int, options: GradNormOptions) -> None:
        super().__init__()
        self.alpha = options.alpha
        self.task_weights = nn.Parameter(torch.ones(tasks), requires_grad=False)
        self.register_buffer("first_losses", torch.zeros(tasks))
        self._optimiser = torch.optim.Adam([self.task_weights], lr=options.learning_rate)

    def backward(self, step: Step) -> torch.Tensor:
        gradients = task_gradients(step)
        weights = self.task_weights[gradients.tasks].clone()
        given = gradients.write(step, weights, weights)
        if len(gradients.tasks) > 1 and len(step.shared):
            losses = step.mean(step.losses.detach())
            self._update(gradients.tasks, losses, gradients.shared.norm(dim=1))
        return given

    def _update(self, tasks: list[int], losses: torch.Tensor, norms: torch.Tensor) -> None:
        """One step on L_grad, whose derivative in w_t is sign(G_t - target_t) |grad_W L_t|."""
        unseen = self.first_losses == 0
        self.first_losses.copy_(torch.where(unseen, losses, self.first_losses))
        progress = losses[tasks] / self.first_losses[tasks].clamp(min=1e-12)
        rates = progress / progress.mean().clamp(min=1e-12)
        weighted = self.task_weights[tasks] * norms
        target = weighted.mean() * rates**self.alpha
        slope = torch.zeros_like(self.task_weights)
        slope[tasks] = torch.sign(weighted - target) * norms
        self.task_weights.grad = slope
        self._optimiser.step()
        self.task_weights.grad = None
        weights = self.task_weights.clamp(min=_LEAST_WEIGHT)
        self.task_weights.copy_(weights * len(weights) / weights.sum())

    def get_extra_state(self) -> dict[str, Any]:
        """The state of the weights' Adam, for a checkpoint."""
        return self._optimiser.state_dict()

    def set_extra_state(self, state: Any) -> None:
        """Take up the state of a checkpoint."""
        self._optimiser.load_state_dict(state)
