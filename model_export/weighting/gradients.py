"""The tasks' gradients one by one: what methods that weigh gradients look at."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from model_export.weighting.base import Step, Weighting


@dataclass(frozen=True)
class TaskGradients:
    """Gradients of the D tasks that are defined in a batch, averaged over all processes.

    Attributes:
        tasks: the D tasks.
        shared: float32 [D, P], with respect to the shared parameters.
        own: float32 [D, Q], with respect to the parameters of single tasks.
        extra: float32 [P + Q], of the network's own training losses.
    """

    tasks: list[int]
    shared: torch.Tensor
    own: torch.Tensor
    extra: torch.Tensor

    @property
    def gramian(self) -> torch.Tensor:
        """float32 [D, D], the inner products of the tasks' gradients on the shared parameters."""
        return self.shared @ self.shared.T

    def write(
        self, step: Step, shared_weights: torch.Tensor, own_weights: torch.Tensor
    ) -> torch.Tensor:
        """Set the parameters' gradients to the weighted sums of the tasks'.

        Args:
            step: whose parameters they are.
            shared_weights, own_weights: [D].

        Returns:
            float32 [T], the weights on the shared parameters, 0 where a task is not defined.
        """
        gradient = torch.cat((shared_weights @ self.shared, own_weights @ self.own)) + self.extra
        parameters = [*step.shared, *step.own]
        parts = torch.split(gradient, [parameter.numel() for parameter in parameters])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter).clone()
        weights = torch.zeros_like(step.losses)
        weights[self.tasks] = shared_weights.to(weights)
        return weights.detach()


def task_gradients(step: Step) -> TaskGradients:
    """A backward pass for each defined task, and one for the extra losses if there are any."""
    parameters = [*step.shared, *step.own]
    shared_size = sum(parameter.numel() for parameter in step.shared)
    tasks: list[int] = torch.nonzero(step.defined).flatten().tolist()
    rows = [_flat_gradient(step.losses[task], parameters) for task in tasks]
    extra = _flat_gradient(step.extra, parameters)
    together = step.mean(torch.stack((*rows, extra)))
    gradients = together[:-1]
    return TaskGradients(
        tasks, gradients[:, :shared_size], gradients[:, shared_size:], together[-1]
    )


class GradientWeighting(Weighting, ABC):
    """Methods that weigh the tasks' gradients where they meet, on the shared parameters.

    A task's own parameters follow its own gradient, unweighted. All methods here need no more of
    the gradients than their inner products, so what is weighed is a matrix [D, D].
    """

    needs_own_reduction = True

    @abstractmethod
    def gradient_weights(self, gramian: torch.Tensor) -> torch.Tensor:
        """Inner products float32 [D, D] -> the weight of each gradient, float32 [D]."""

    def backward(self, step: Step) -> torch.Tensor:
        gradients = task_gradients(step)
        ones = torch.ones(len(gradients.tasks), device=step.losses.device)
        weights = ones
        if len(gradients.tasks) > 1 and len(step.shared):
            # Where chance has a part in the weights, processes draw differently: take the mean.
            weights = step.mean(self.gradient_weights(gradients.gramian))
        return gradients.write(step, weights, ones)


def _flat_gradient(loss: torch.Tensor, parameters: Sequence[nn.Parameter]) -> torch.Tensor:
    if not loss.requires_grad:
        return torch.cat([torch.zeros_like(parameter).flatten() for parameter in parameters])
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return torch.cat(
        [
            (torch.zeros_like(parameter) if gradient is None else gradient).flatten()
            for parameter, gradient in zip(parameters, found, strict=True)
        ]
    )
