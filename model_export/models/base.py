"""The base of all methods: three stages, logits for training, scores for serving.

A method declares how wide its first layer is and computes logits from that layer's output; the
stages follow from the split of the layer. A method in which an item meets the user's history
overrides the stages themselves.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from bundle.manifest import Task
from bundle.schema import FeatureSchema
from model_export.models.inputs import EmbeddingTable, FirstLayer, SideInputs

Width = Annotated[int, Field(ge=1)]


class ArchitectureOptions(BaseModel):
    """What every method has.

    Attributes:
        embedding_width: of every embedded feature.
        tower_layers: widths of a task tower's hidden layers.
        dropout: share of hidden activations dropped in training.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    embedding_width: Width = 16
    tower_layers: tuple[Width, ...] = (32,)
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


class MultiTaskModel(nn.Module, ABC):
    """A ranking network of T tasks.

    Args:
        schema: the features it reads.
        tasks: the T tasks, in the order of the score columns.
        options: sizes.
        first_width: P, the summed widths of the first layers of all experts and gates.
    """

    task_modules: ClassVar[tuple[str, ...]] = ("towers",)
    """Names of the modules whose parameters belong to tasks alone."""

    is_binary: torch.Tensor
    label_mean: torch.Tensor
    label_std: torch.Tensor

    def __init__(
        self,
        schema: FeatureSchema,
        tasks: Sequence[Task],
        options: ArchitectureOptions,
        first_width: int,
    ) -> None:
        super().__init__()
        self.embeddings = EmbeddingTable(schema, options.embedding_width)
        self.user_inputs = SideInputs(schema, "user", self.embeddings)
        self.item_inputs = SideInputs(schema, "item", self.embeddings)
        self.first = FirstLayer(self.user_inputs.width, self.item_inputs.width, first_width)
        self.task_kinds = tuple(task.kind for task in tasks)
        is_binary = torch.tensor([task.kind == "binary" for task in tasks])
        self.register_buffer("is_binary", is_binary, persistent=False)
        self.register_buffer("label_mean", torch.zeros(len(tasks)))
        self.register_buffer("label_std", torch.ones(len(tasks)))

    @abstractmethod
    def logits_from_first(self, first: torch.Tensor) -> torch.Tensor:
        """What follows the first layer.

        Args:
            first: float32 [N, P], before any activation.

        Returns:
            logits float32 [N, T]; of a regression task, the standardised label.
        """

    def user_stage(self, ids: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """ids int32 [U, K], numbers float32 [U, M] -> user_tensor float32 [U, P]."""
        x = self.user_inputs(ids, numbers, self.embeddings.part("user"))
        tensor: torch.Tensor = self.first.user(x)
        return tensor

    def item_stage(self, ids: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """ids int32 [I, K'], numbers float32 [I, M'] -> item_tensor float32 [I, P]."""
        x = self.item_inputs(ids, numbers, self.embeddings.part("item"))
        tensor: torch.Tensor = self.first.item(x)
        return tensor

    def joint_logits(
        self, user_tensor: torch.Tensor, item_tensor: torch.Tensor, user_row: torch.Tensor
    ) -> torch.Tensor:
        """user_tensor [U, P], item_tensor [N, P], user_row int64 [N] -> logits float32 [N, T]."""
        return self.logits_from_first(user_tensor.index_select(0, user_row) + item_tensor)

    def joint_stage(
        self, user_tensor: torch.Tensor, item_tensor: torch.Tensor, user_row: torch.Tensor
    ) -> torch.Tensor:
        """The same inputs -> task_scores float32 [N, T].

        A binary task's score is a probability, a regression task's is in its label's unit.
        """
        logits = self.joint_logits(user_tensor, item_tensor, user_row)
        if "regression" not in self.task_kinds:
            return torch.sigmoid(logits)
        return torch.where(
            self.is_binary, torch.sigmoid(logits), logits * self.label_std + self.label_mean
        )

    def forward(
        self,
        user_ids: torch.Tensor,
        user_numbers: torch.Tensor,
        item_ids: torch.Tensor,
        item_numbers: torch.Tensor,
        user_row: torch.Tensor,
        item_row: torch.Tensor,
    ) -> torch.Tensor:
        """All stages at once, for training.

        Args:
            user_ids, user_numbers: [U, ...]. item_ids, item_numbers: [I, ...].
            user_row, item_row: int64 [N], the user and the item of each candidate row.

        Returns:
            logits float32 [N, T].
        """
        items = self.item_stage(item_ids, item_numbers).index_select(0, item_row)
        return self.joint_logits(self.user_stage(user_ids, user_numbers), items, user_row)

    @property
    def trained(self) -> tuple[bool, ...]:
        """Of each of the T tasks, whether a loss of its own trains it; all, by default."""
        return (True,) * len(self.task_kinds)

    def extra_losses(self) -> Mapping[str, torch.Tensor]:
        """Terms of the last forward that the objective adds to the tasks' losses.

        Returns:
            Name -> float32 scalar, its weight already in it; empty for most methods.
        """
        return {}

    def task_parameters(self) -> list[nn.Parameter]:
        """Parameters that the loss of a single task moves, of all tasks.

        A stacked tensor holds a task in each row, and a task's loss leaves the other rows alone.
        """
        modules = (getattr(self, name) for name in self.task_modules)
        return [parameter for module in modules for parameter in module.parameters()]

    def shared_parameters(self) -> list[nn.Parameter]:
        """All others: where the gradients of tasks meet. Empty for networks that share nothing.

        A tensor counts as a whole: one that stacks shared experts and a task's own is shared.
        """
        own = {id(parameter) for parameter in self.task_parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in own]

    def fit_label_scale(
        self, labels: npt.NDArray[np.float32], masks: npt.NDArray[np.bool_]
    ) -> None:
        """Take mean and deviation of the regression labels, [N, T], where they are defined."""
        for task in torch.nonzero(~self.is_binary).flatten().tolist():
            defined = labels[masks[:, task], task]
            if len(defined):
                self.label_mean[task] = float(defined.mean(dtype=np.float64))
                self.label_std[task] = float(defined.std(dtype=np.float64)) or 1.0

    def standardise(self, labels: torch.Tensor) -> torch.Tensor:
        """Labels [N, T] on the scale of the logits; binary labels stay as they are."""
        return (labels - self.label_mean) / self.label_std
