"""A two-tower network with an MLP over both, in plain torch: nothing of the project's zoo.

    user = tower_u(x_u)    item = tower_i(x_i)    scores = sigmoid(MLP([user, item, user * item]))

The towers are the user and the item stage, so a request computes the user's once and the service
keeps the items'; the MLP is the joint stage.
"""

from __future__ import annotations

import torch
from torch import nn

from bundle.encoding import Side, side_layout
from bundle.schema import FeatureSchema


class Tower(nn.Module):
    """One side: an embedding a feature, id lists pooled by their mean, then a layer.

    A side's ids and numbers come as two matrices; `side_layout` says which columns are whose.
    """

    def __init__(self, schema: FeatureSchema, side: Side, width: int) -> None:
        super().__init__()
        layout = side_layout(schema, side)
        self.columns = [slice(c.start, c.start + c.width) for c in layout.id_columns]
        self.embeddings = nn.ModuleList(
            nn.Embedding(schema.table_rows(columns.feature), 8, padding_idx=0)
            for columns in layout.id_columns
        )
        self.linear = nn.Linear(8 * len(self.columns) + layout.number_width, width)

    def forward(self, ids: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """ids int32 [R, K], numbers float32 [R, M] -> float32 [R, width]."""
        parts = [numbers]
        for columns, embedding in zip(self.columns, self.embeddings, strict=True):
            own = ids[:, columns]
            length = (own != 0).sum(dim=1, keepdim=True).clamp(min=1)
            parts.append(embedding(own).sum(dim=1) / length)
        return torch.relu(self.linear(torch.cat(parts, dim=1)))


class TwoTower(nn.Module):
    """`user_stage`, `item_stage` and `joint_stage` are all that an export needs."""

    def __init__(self, schema: FeatureSchema, tasks: int, width: int = 32) -> None:
        super().__init__()
        self.user_tower = Tower(schema, "user", width)
        self.item_tower = Tower(schema, "item", width)
        self.mlp = nn.Sequential(nn.Linear(3 * width, 32), nn.ReLU(), nn.Linear(32, tasks))

    def user_stage(self, ids: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """ids [U, K], numbers [U, M] -> float32 [U, width]."""
        tensor: torch.Tensor = self.user_tower(ids, numbers)
        return tensor

    def item_stage(self, ids: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """ids [I, K'], numbers [I, M'] -> float32 [I, width]."""
        tensor: torch.Tensor = self.item_tower(ids, numbers)
        return tensor

    def joint_stage(
        self, user_tensor: torch.Tensor, item_tensor: torch.Tensor, user_row: torch.Tensor
    ) -> torch.Tensor:
        """[U, width], [N, width], user_row [N] -> probabilities float32 [N, T]."""
        return torch.sigmoid(self.logits(user_tensor.index_select(0, user_row), item_tensor))

    def logits(self, user: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
        """User and item tensors, both [N, width] -> logits float32 [N, T]."""
        logits: torch.Tensor = self.mlp(torch.cat((user, item, user * item), dim=1))
        return logits
