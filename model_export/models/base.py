"""The base of all methods: three stages, logits for training, scores for serving."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Self

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from bundle.manifest import Task
from model_export.data.declarations import FeatureDeclaration
from model_export.data.tasks import TaskDeclaration
from model_export.models.dien import DIENOptions
from model_export.models.din import DINOptions
from model_export.models.outputs import Output, TaskOutputs
from model_export.models.position_bias import PositionBias, PositionBiasOptions

Width = Annotated[int, Field(ge=1)]
Layers = Annotated[tuple[Width, ...], Field(min_length=1)]


class ArchitectureOptions(BaseModel):
    """What every method has.

    Attributes:
        embedding_width: of every embedded feature.
        tower_layers: widths of a task tower's hidden layers.
        dropout: share of hidden activations dropped in training.
        history: how the user's history is held against the item, beside its mean.
        position_bias: a shallow tower for the position that a candidate was shown at.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    embedding_width: Width = 16
    tower_layers: tuple[Width, ...] = (32,)
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    history: Annotated[DINOptions | DIENOptions, Field(discriminator="encoder")] | None = None
    position_bias: PositionBiasOptions | None = None

    def check(
        self, features: Sequence[FeatureDeclaration], tasks: Sequence[TaskDeclaration]
    ) -> None:
        """Whether these options fit the rest of a configuration.

        Raises:
            ValueError: they name a feature or a task that is not there or not of the right kind.
        """
        if self.history is not None:
            self.history.check(features)


class GatedOptions(ArchitectureOptions):
    """What every method with gates has.

    Attributes:
        attention_gate: width of the queries and keys of attention gates (`attention_gate.py`);
            linear gates, as in the papers, when left out.
    """

    attention_gate: Width | None = None


class MultiTaskModel(nn.Module, ABC):
    """A ranking network of T tasks.

    Args:
        tasks: the T tasks, in the order of the score columns.
        options: of the architecture.
    """

    task_modules: tuple[str, ...] = ("towers", "position_bias")
    """Names of the modules whose every parameter the loss of a single task moves."""

    def __init__(self, tasks: Sequence[Task], options: ArchitectureOptions) -> None:
        super().__init__()
        self.task_kinds = tuple(task.kind for task in tasks)
        self.outputs = TaskOutputs([Output.of_kind(task.kind) for task in tasks])
        self.position_bias = (
            PositionBias(len(tasks), options.position_bias) if options.position_bias else None
        )

    @abstractmethod
    def user_stage(self, ids: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """ids int32 [U, K], numbers float32 [U, M] -> user_tensor float32 [U, P]."""

    @abstractmethod
    def item_stage(self, ids: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """ids int32 [I, K'], numbers float32 [I, M'] -> item_tensor float32 [I, P']."""

    @abstractmethod
    def tower_logits(
        self, user_tensor: torch.Tensor, item_tensor: torch.Tensor, user_row: torch.Tensor
    ) -> torch.Tensor:
        """What the task towers give.

        Args:
            user_tensor: [U, P]. item_tensor: [N, P']. user_row: int64 [N].

        Returns:
            float32 [N, T]; of a regression task, the standardised label.
        """

    def task_logits(self, towers: torch.Tensor) -> torch.Tensor:
        """From the towers' logits, bias added, to the tasks': the same, for most; both [N, T]."""
        return towers

    def joint_logits(
        self,
        user_tensor: torch.Tensor,
        item_tensor: torch.Tensor,
        user_row: torch.Tensor,
        positions: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The logits of every candidate row.

        Args:
            user_tensor: [U, P]. item_tensor: [N, P']. user_row: int64 [N].
            positions: int64 [N], where each candidate was shown; unknown, as in serving, when None.

        Returns:
            logits float32 [N, T].
        """
        logits = self.tower_logits(user_tensor, item_tensor, user_row)
        if self.position_bias is not None:
            logits = logits + self.position_bias(positions)
        return self.task_logits(logits)

    def joint_stage(
        self, user_tensor: torch.Tensor, item_tensor: torch.Tensor, user_row: torch.Tensor
    ) -> torch.Tensor:
        """The same inputs -> task_scores of the S served tasks, float32 [N, S]."""
        scores: torch.Tensor = self.outputs(self.joint_logits(user_tensor, item_tensor, user_row))
        return scores

    def forward(
        self,
        user_ids: torch.Tensor,
        user_numbers: torch.Tensor,
        item_ids: torch.Tensor,
        item_numbers: torch.Tensor,
        user_row: torch.Tensor,
        item_row: torch.Tensor,
        positions: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """All stages at once, for training.

        Args:
            user_ids, user_numbers: [U, ...]. item_ids, item_numbers: [I, ...].
            user_row, item_row: int64 [N], the user and the item of each candidate row.
            positions: int64 [N], where each candidate was shown.

        Returns:
            logits float32 [N, T].
        """
        users = self.user_stage(user_ids, user_numbers)
        items = self.item_stage(item_ids, item_numbers).index_select(0, item_row)
        return self.joint_logits(users, items, user_row, positions)

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

        A stacked tensor holds several tasks, and a task's loss leaves the others' part of it alone.
        """
        modules = (getattr(self, name) for name in self.task_modules)
        present = (module for module in modules if module is not None)
        return [parameter for module in present for parameter in module.parameters()]

    def shared_parameters(self) -> list[nn.Parameter]:
        """All others: where the gradients of tasks meet. Empty for networks that share nothing.

        A tensor counts as a whole: one that stacks shared experts and a task's own is shared.
        """
        own = {id(parameter) for parameter in self.task_parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in own]

    def for_serving(self) -> Self:
        """The network to export, giving the same scores: without what only training needs."""
        return self
