"""What a network must implement to be exported: the three stages, or one. Torch modules both.

The networks of `model_export.models` have three. A module of your own needs no base class: methods
of these names, exportable by `torch.onnx.export`, are enough; see `model_export.own`.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch


@runtime_checkable
class ThreeStages(Protocol):
    """A network whose user and item parts do not need each other.

    The user's part is computed once a request, an item's once and then kept, the joint part for
    every candidate. K ids and M numbers of a side: see `bundle.encoding.side_layout`.
    """

    def eval(self) -> Any:
        """As `torch.nn.Module.eval`."""

    def user_stage(self, ids: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """ids int32 [U, K], numbers float32 [U, M] -> user_tensor float32 [U, P]."""

    def item_stage(self, ids: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """ids int32 [I, K'], numbers float32 [I, M'] -> item_tensor float32 [I, P']."""

    def joint_stage(
        self, user_tensor: torch.Tensor, item_tensor: torch.Tensor, user_row: torch.Tensor
    ) -> torch.Tensor:
        """user_tensor [U, P], item_tensor [N, P'], user_row [N] -> task_scores float32 [N, T].

        Row n is the item n for the user `user_row[n]`, int64. Scores, not logits: a probability
        for a binary task.
        """


@runtime_checkable
class OneStage(Protocol):
    """A network that is computed as a whole for every candidate."""

    def eval(self) -> Any:
        """As `torch.nn.Module.eval`."""

    def single_stage(
        self,
        user_ids: torch.Tensor,
        user_numbers: torch.Tensor,
        item_ids: torch.Tensor,
        item_numbers: torch.Tensor,
        user_row: torch.Tensor,
    ) -> torch.Tensor:
        """Users [U, ...], items [N, ...], user_row [N] -> task_scores float32 [N, T].

        Row n is the item n for the user `user_row[n]`, int64. Scores, not logits.
        """


Network: TypeAlias = ThreeStages | OneStage
