"""Networks whose first linear layer is split into the stages.

A method declares how wide its first layer is and computes logits from that layer's output; the
stages follow from the split of the layer.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import nn

from bundle.manifest import Task
from bundle.schema import FeatureSchema
from model_export.models.base import ArchitectureOptions, MultiTaskModel
from model_export.models.inputs import EmbeddingTable, SideInputs


class FirstLayer(nn.Module):
    """The first linear layer of all experts and gates, split by columns into the two sides.

    W x + b = (W_u x_u) + (W_i x_i + b), exactly; each side's product is computed in its own stage.
    Initialised as `StackedLinear` is.
    """

    def __init__(self, user_width: int, item_width: int, out_width: int) -> None:
        super().__init__()
        bound = math.sqrt(6 / (user_width + item_width))
        self.user = nn.Linear(user_width, out_width, bias=False)
        self.item = nn.Linear(item_width, out_width)
        for layer in (self.user, self.item):
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
        self.first = FirstLayer(self.user_inputs.width, self.item_inputs.width, first_width)

    @abstractmethod
    def logits_from_first(self, first: torch.Tensor) -> torch.Tensor:
        """What follows the first layer.

        Args:
            first: float32 [N, P], before any activation.

        Returns:
            logits float32 [N, T]; of a regression task, the standardised label.
        """

    def user_stage(self, ids: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        x = self.user_inputs(ids, numbers, self.embeddings.part("user"))
        tensor: torch.Tensor = self.first.user(x)
        return tensor

    def item_stage(self, ids: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        x = self.item_inputs(ids, numbers, self.embeddings.part("item"))
        tensor: torch.Tensor = self.first.item(x)
        return tensor

    def tower_logits(
        self, user_tensor: torch.Tensor, item_tensor: torch.Tensor, user_row: torch.Tensor
    ) -> torch.Tensor:
        return self.logits_from_first(user_tensor.index_select(0, user_row) + item_tensor)
