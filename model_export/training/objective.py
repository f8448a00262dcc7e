"""The objective of a step: the tasks' losses on a batch, handed to the weighting method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from model_export.data.batches import TrainingBatch
from model_export.data.tasks import TaskDeclaration
from model_export.losses import task_losses
from model_export.models.base import MultiTaskModel
from model_export.training import device as devices
from model_export.training.device import Precision
from model_export.training.processes import Processes
from model_export.weighting import Step
from model_export.weighting.gradients import task_gradients


@dataclass(frozen=True)
class Objective:
    """The losses of a network's tasks.

    Attributes:
        model: the network. forward: the same, or its DistributedDataParallel.
    """

    model: MultiTaskModel
    forward: nn.Module
    tasks: Sequence[TaskDeclaration]
    processes: Processes
    device: torch.device
    precision: Precision

    def step(self, training: TrainingBatch) -> tuple[Step, torch.Tensor]:
        """A forward pass.

        Returns:
            What the weighting method needs, and the tasks' unweighted mean losses, float32 [T].
        """
        batch = training.batch.to(self.device)
        with devices.mixed(self.device, self.precision):
            logits: torch.Tensor = self.forward(
                batch.user_ids,
                batch.user_numbers,
                batch.item_ids,
                batch.item_numbers,
                batch.user_row,
                batch.item_row,
                batch.positions,
            )
        defined = torch.from_numpy(training.defined).to(self.device)
        losses = task_losses(
            [task.training_loss for task in self.tasks],
            logits.float(),
            self.model.outputs.standardise(batch.labels),
            batch.masks,
            [_negative_weight(task) for task in self.tasks],
            defined / self.processes.count,
        )
        trained = torch.tensor(self.model.trained, device=self.device)
        static = losses.new_tensor([task.loss_weight for task in self.tasks])
        step = Step(
            losses=losses * static,
            defined=(defined > 0) & trained,
            extra=sum(self.model.extra_losses().values(), losses.new_zeros(())),
            shared=self.model.shared_parameters(),
            own=self.model.task_parameters(),
            mean=self.processes.mean,
        )
        return step, losses.detach()


def conflict(step: Step) -> list[list[float]]:
    """Cosines of the tasks' gradients on the shared parameters, [T, T]; 0 where one has none.

    Below 0 the tasks pull against each other.
    """
    gradients = task_gradients(step)
    lengths = gradients.shared.norm(dim=1, keepdim=True)
    directions = gradients.shared / lengths.clamp(min=torch.finfo(torch.float32).tiny)
    cosines = torch.zeros(len(step.losses), len(step.losses))
    at = torch.tensor(gradients.tasks)
    cosines[at[:, None], at] = (directions @ directions.T).cpu()
    rounded: list[list[float]] = [[round(x, 4) for x in row] for row in cosines.tolist()]
    return rounded


def _negative_weight(task: TaskDeclaration) -> float:
    if task.negatives is not None and task.negatives.by == "weighting":
        return task.negatives.keep
    return 1.0
