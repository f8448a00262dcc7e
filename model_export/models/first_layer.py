"""Networks whose first linear layer is split into the stages.

A method declares how wide its first layer is and computes logits from that layer's output; the
stages follow from the split of the layer.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from bundle.manifest import Task
from bundle.schema import FeatureSchema
from model_export.models.base import ArchitectureOptions, MultiTaskModel
from model_export.models.dien import DIEN
from model_export.models.din import DIN, DINOptions
from model_export.models.history import HistoryColumns, HistoryEncoder
from model_export.models.inputs import EmbeddingTable, SideInputs


class FirstLayer(nn.Module):
    """The first linear layer of all experts and gates, split by columns into the two sides.

    W x + b = (W_u x_u) + (W_i x_i + b), exactly; each side's product is computed in its own stage.
    Where an item meets the user's history, W_h x_h of what comes of it is added for each candidate.
    Initialised as `StackedLinear` is.
    """

    def __init__(
        self, user_width: int, item_width: int, out_width: int, interest_width: int = 0
    ) -> None:
        super().__init__()
        bound = math.sqrt(6 / (user_width + item_width + interest_width))
        self.user = nn.Linear(user_width, out_width, bias=False)
        self.item = nn.Linear(item_width, out_width)
        self.interest = nn.Linear(interest_width, out_width, bias=False) if interest_width else None
        for layer in (self.user, self.item, self.interest):
            if layer is not None:
                nn.init.uniform_(layer.weight, -bound, bound)
        nn.init.zeros_(self.item.bias)


class FirstLayerModel(MultiTaskModel):
    """A network of T tasks over one first layer.

    Args:
        schema: the features it reads.
        tasks: the T tasks, in the order of the score columns.
        options: sizes.
        first_width: P, the summed widths of the first layers of all experts and gates.
    """

    def __init__(
        self,
        schema: FeatureSchema,
        tasks: Sequence[Task],
        options: ArchitectureOptions,
        first_width: int,
    ) -> None:
        super().__init__(tasks, options)
        self.embeddings = EmbeddingTable(schema, options.embedding_width)
        self.user_inputs = SideInputs(schema, "user", self.embeddings)
        self.item_inputs = SideInputs(schema, "item", self.embeddings)
        self.history = _history_encoder(schema, options, self.embeddings)
        self.first_width = first_width
        self.first = FirstLayer(
            self.user_inputs.width,
            self.item_inputs.width,
            first_width,
            self.history.width if self.history else 0,
        )

    @abstractmethod
    def logits_from_first(self, first: torch.Tensor) -> torch.Tensor:
        """What follows the first layer.

        Args:
            first: float32 [N, P], before any activation.

        Returns:
            logits float32 [N, T]; of a regression task, the standardised label.
        """

    def user_stage(self, ids: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        part = self.embeddings.part("user")
        tensor: torch.Tensor = self.first.user(self.user_inputs(ids, numbers, part))
        if self.history is None:
            return tensor
        return torch.cat((tensor, self.history.user_stage(ids, part)), dim=1)

    def item_stage(self, ids: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        part = self.embeddings.part("item")
        tensor: torch.Tensor = self.first.item(self.item_inputs(ids, numbers, part))
        if self.history is None:
            return tensor
        return torch.cat((tensor, self.history.item_stage(ids, part)), dim=1)

    def tower_logits(
        self, user_tensor: torch.Tensor, item_tensor: torch.Tensor, user_row: torch.Tensor
    ) -> torch.Tensor:
        if self.history is None or self.first.interest is None:
            return self.logits_from_first(user_tensor.index_select(0, user_row) + item_tensor)
        user, history = user_tensor.tensor_split((self.first_width,), dim=1)
        item, target = item_tensor.tensor_split((self.first_width,), dim=1)
        interest = self.history.interest(history, target, user_row)
        first = user.index_select(0, user_row) + item + self.first.interest(interest)
        return self.logits_from_first(first)

    def extra_losses(self) -> Mapping[str, torch.Tensor]:
        return self.history.extra_losses() if self.history else {}


def _history_encoder(
    schema: FeatureSchema, options: ArchitectureOptions, table: EmbeddingTable
) -> HistoryEncoder | None:
    if options.history is None:
        return None
    columns = HistoryColumns.find(schema, options.history.feature, table)
    if isinstance(options.history, DINOptions):
        return DIN(columns, options.embedding_width, options.history)
    return DIEN(columns, options.embedding_width, options.history)
