"""Single-task models: one independent network for each task, for comparison.

Nothing is shared, embeddings included: what multi-task methods are measured against in the papers
of MMoE and PLE. The stages of all networks stand side by side, to be served as one model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import nn

from bundle.manifest import Task
from bundle.schema import FeatureSchema
from model_export.models.base import ArchitectureOptions, Layers, MultiTaskModel
from model_export.models.shared_bottom import SharedBottom, SharedBottomOptions


class SingleTaskOptions(ArchitectureOptions):
    """Sizes: `task_layers` are the layer widths of each task's network, below its tower."""

    family: Literal["single_task"]
    task_layers: Layers


class SingleTask(MultiTaskModel):
    """T networks of one task."""

    task_modules = ("networks", "position_bias")

    def __init__(
        self, schema: FeatureSchema, tasks: Sequence[Task], options: SingleTaskOptions
    ) -> None:
        super().__init__(tasks, options)
        common = options.model_dump(exclude={"family", "task_layers", "position_bias"})
        one = SharedBottomOptions(
            family="shared_bottom", bottom_layers=options.task_layers, **common
        )
        self.networks = nn.ModuleList(SharedBottom(schema, (task,), one) for task in tasks)
        self.task_names = [task.name for task in tasks]

    def user_stage(self, ids: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        return torch.cat([one.user_stage(ids, numbers) for one in self._networks()], dim=1)

    def item_stage(self, ids: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        return torch.cat([one.item_stage(ids, numbers) for one in self._networks()], dim=1)

    def tower_logits(
        self, user_tensor: torch.Tensor, item_tensor: torch.Tensor, user_row: torch.Tensor
    ) -> torch.Tensor:
        networks = self._networks()
        users = user_tensor.chunk(len(networks), dim=1)
        items = item_tensor.chunk(len(networks), dim=1)
        sides = zip(networks, users, items, strict=True)
        return torch.cat([one.tower_logits(user, item, user_row) for one, user, item in sides], 1)

    def extra_losses(self) -> Mapping[str, torch.Tensor]:
        return {
            f"{task}_{name}": loss
            for task, network in zip(self.task_names, self._networks(), strict=True)
            for name, loss in network.extra_losses().items()
        }

    def _networks(self) -> list[SharedBottom]:
        return [network for network in self.networks if isinstance(network, SharedBottom)]
