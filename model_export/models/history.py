"""What a user did before, encoded against the item at hand: usable under any architecture.

An encoder adds columns to the first layer of whatever network it is used in: the interest that a
candidate finds in its user's history. It has three stages, as the network has:

    user    the history's ids                      -> what the joint stage needs of it [U, A]
    item    the item's id                          -> what the joint stage needs of it [I, B]
    joint   both, for each candidate row           -> interest [N, width]

The history still enters the user's inputs pooled by its mean, as it does in the code that the
authors of DIN and DIEN published.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from bundle.encoding import side_layout
from bundle.schema import FIRST_VALUE_INDEX, PADDING_INDEX, FeatureSchema, Name
from model_export.data.declarations import FeatureDeclaration
from model_export.models.inputs import EmbeddingTable


class HistoryOptions(BaseModel):
    """Which history.

    Attributes:
        feature: an id list of the user, most recent first, that shares the vocabulary of a
            categorical item feature: the one that its ids are held against.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    feature: Name

    def check(self, features: Sequence[FeatureDeclaration]) -> None:
        """Whether there is such a feature.

        Raises:
            ValueError: there is not.
        """
        by_key = {feature.key: feature for feature in features}
        history = by_key.get(f"user.{self.feature}")
        if history is None or history.kind != "id_list":
            raise ValueError(f"architecture.history.feature: no id list user.{self.feature}")
        target = by_key.get(history.shares or "")
        if target is None or target.kind != "categorical" or target.entity != "item":
            raise ValueError(
                f"architecture.history.feature: {history.key} must share the vocabulary of a "
                "categorical item feature, to be held against it"
            )


@dataclass(frozen=True)
class HistoryColumns:
    """Where the history's and the item's ids are.

    Attributes:
        start, length: the history's id columns on the user side; `length` is L.
        item: the id column on the item side.
        user_offset, item_offset: from an id to its row in that side's part of the table.
        values: how many rows of the table hold values, from FIRST_VALUE_INDEX on.
    """

    start: int
    length: int
    item: int
    user_offset: int
    item_offset: int
    values: int

    @classmethod
    def find(cls, schema: FeatureSchema, feature: str, table: EmbeddingTable) -> HistoryColumns:
        """The columns of the user's `feature` and of the item feature that it shares with."""
        user = {one.feature.key: one for one in side_layout(schema, "user").id_columns}
        item = {one.feature.key: one for one in side_layout(schema, "item").id_columns}
        history = user[f"user.{feature}"]
        start = table.starts[history.table]
        return cls(
            start=history.start,
            length=history.width,
            item=item[history.table].start,
            user_offset=start - table.ranges["user"][0],
            item_offset=start - table.ranges["item"][0],
            values=schema.table_rows(history.feature) - FIRST_VALUE_INDEX,
        )


class HistoryEncoder(nn.Module, ABC):
    """The three stages of an encoder.

    Args:
        columns: where the ids are.
        embedding_width: E.

    Attributes:
        width: of the interest.
    """

    def __init__(self, columns: HistoryColumns, embedding_width: int) -> None:
        super().__init__()
        self.columns = columns
        self.width = embedding_width

    @abstractmethod
    def user_stage(self, ids: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """The user side's ids int32 [U, K], its part of the table -> float32 [U, A]."""

    @abstractmethod
    def item_stage(self, ids: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """The item side's ids int32 [I, K'], its part of the table -> float32 [I, B]."""

    @abstractmethod
    def interest(
        self, user: torch.Tensor, item: torch.Tensor, user_row: torch.Tensor
    ) -> torch.Tensor:
        """[U, A] and [N, B] of the other stages, user_row int64 [N] -> float32 [N, width]."""

    def extra_losses(self) -> Mapping[str, torch.Tensor]:
        """As `MultiTaskModel.extra_losses`."""
        return {}

    def embedded_history(
        self, ids: torch.Tensor, table: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The history's embeddings [U, L, E], zeros where padded, and its mask [U, L], 0 or 1."""
        history = ids[:, self.columns.start : self.columns.start + self.columns.length]
        embedded = nn.functional.embedding(history + self.columns.user_offset, table)
        mask = (history != PADDING_INDEX).to(embedded.dtype)
        return embedded * mask.unsqueeze(-1), mask

    def embedded_item(self, ids: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """The item's embedding: float32 [I, E]."""
        return nn.functional.embedding(ids[:, self.columns.item] + self.columns.item_offset, table)
