"""What every weighting method does: task losses -> gradients of all parameters.

A method either weighs the losses, one backward pass for all of them, or weighs the tasks' gradients
on the shared parameters, one pass for each task. `extra` losses (regularisers of the network) are
added to the objective with weight 1 and have no part in the weighing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn


class WeightingOptions(BaseModel):
    """What a configuration says of a method."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Step:
    """One step's losses, before their gradients are taken.

    Attributes:
        losses: float32 [T], the mean loss of each task, times its static weight.
        defined: bool [T], the tasks that have a row in the batch, and a loss of their own.
        extra: scalar, the network's own training losses.
        shared: parameters that several tasks' losses reach.
        own: parameters of one task each.
        mean: of a tensor over all training processes; the tensor itself where there is one.
    """

    losses: torch.Tensor
    defined: torch.Tensor
    extra: torch.Tensor
    shared: Sequence[nn.Parameter]
    own: Sequence[nn.Parameter]
    mean: Callable[[torch.Tensor], torch.Tensor]


class Weighting(nn.Module, ABC):
    """A method for T tasks; its parameters, if any, are trained with the network's.

    Attributes:
        needs_own_reduction: the method takes gradients by itself, so DistributedDataParallel does
            not see the backward pass; the method averages over processes what it must.
    """

    needs_own_reduction = False

    @abstractmethod
    def backward(self, step: Step) -> torch.Tensor:
        """Set the gradients of all parameters.

        Returns:
            float32 [T], the weights given to the tasks; 0 where a task is not defined.
        """

    def end_epoch(self, losses: torch.Tensor) -> None:
        """Take note of the mean training loss of each task over the epoch, float32 [T]."""


class LossWeighting(Weighting, ABC):
    """Methods whose objective is sum_t w_t L_t with weights that are constants of the step."""

    @abstractmethod
    def weights(self, step: Step) -> torch.Tensor:
        """float32 [T], for defined and undefined tasks alike."""

    def backward(self, step: Step) -> torch.Tensor:
        weights = self.weights(step).detach() * step.defined
        torch.autograd.backward(torch.dot(step.losses, weights) + step.extra)
        return weights
