"""DIN: attention of a candidate to each entry of the user's history.

Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018, equation 3, with
e_1..e_L the embeddings of the history and v that of the candidate:

    interest = sum_j a(e_j, v) e_j

a is the activation unit of figure 2, a small network with PReLU and one output. Its weights do not
sum to 1: their sum says how strong the interest is. It reads, as in the authors' code,

    [e, v, e - v, e * v]

The first layer over these is split: W_1 e + W_2 v + W_3 (e - v) + W_4 (e * v) + b
= (W_1 + W_3) e + b, of the user alone, + (W_2 - W_3) v, of the item alone, + W_4 (e * v), so that
only the last product runs for every pair. A padded entry has e = 0 and adds nothing.

Stages: user hands on e [L, E]; item hands on v [E].
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt
from torch import nn

from model_export.models.history import HistoryColumns, HistoryEncoder, HistoryOptions


class DINOptions(HistoryOptions):
    """Sizes: `attention_layers` are the widths of the activation unit's hidden layers."""

    encoder: Literal["din"]
    attention_layers: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (36,)


class DIN(HistoryEncoder):
    """The activation unit, and the sum that it weights."""

    def __init__(self, columns: HistoryColumns, embedding_width: int, options: DINOptions) -> None:
        super().__init__(columns, embedding_width)
        first, *_ = options.attention_layers
        self.first = nn.Linear(4 * embedding_width, first)
        widths = (*options.attention_layers, 1)
        self.linears = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))
        self.activations = nn.ModuleList(nn.PReLU() for _ in options.attention_layers)

    def user_stage(self, ids: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        history, _ = self.embedded_history(ids, table)
        return history.flatten(1)

    def item_stage(self, ids: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        return self.embedded_item(ids, table)

    def interest(
        self, user: torch.Tensor, item: torch.Tensor, user_row: torch.Tensor
    ) -> torch.Tensor:
        length = self.columns.length
        history = torch.unflatten(user, 1, (length, self.width))
        of_e, of_v, of_difference, of_product = (
            self.first.weight[:, part * self.width : (part + 1) * self.width] for part in range(4)
        )
        by_user = nn.functional.linear(history, of_e + of_difference, self.first.bias)
        by_item = nn.functional.linear(item, of_v - of_difference)

        rows = history.index_select(0, user_row)
        by_pair = nn.functional.linear(rows * item.unsqueeze(1), of_product)
        x = by_user.index_select(0, user_row) + by_item.unsqueeze(1) + by_pair
        for activation, linear in zip(self.activations, self.linears, strict=True):
            x = linear(activation(x))
        return torch.matmul(x.transpose(1, 2), rows).squeeze(1)
