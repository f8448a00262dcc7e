"""DIEN: interests extracted from the history as a sequence, evolving towards a candidate.

Zhou et al., "Deep Interest Evolution Network for Click-Through Rate Prediction", AAAI 2019.

Interest extractor (equations 2 to 5): a GRU over the history's embeddings e_t, oldest first,

    u_t = sigmoid(W_u e_t + U_u h_{t-1} + b_u)     h~_t = tanh(W_h e_t + r_t * U_h h_{t-1} + b_h)
    r_t = sigmoid(W_r e_t + U_r h_{t-1} + b_r)     h_t = (1 - u_t) * h_{t-1} + u_t * h~_t

Auxiliary loss (equations 6 and 7): each interest should tell the next entry of the history from
another one, drawn at random from the vocabulary:

    L_aux = - mean over t of log sigmoid(h_t . e_{t+1}) + log(1 - sigmoid(h_t . e'_{t+1}))

times `auxiliary_weight`. The mean is over all steps of all users of the batch; the paper sums over
t, which would make the weight depend on how long histories are. h and e are of one width therefore.

Interest evolution: attention of the candidate's embedding v to each interest (equation 8), and a
GRU over the interests whose update gate it scales, AUGRU:

    a_t = softmax_t(h_t W v)        u'_t as above, of h_t        u~_t = a_t u'_t
    h'_t = (1 - u~_t) * h'_{t-1} + u~_t * h~'_t                  interest = h'_L

A padded step has a_t = 0 and leaves the state as it is; so has one of the extractor, which is the
same cell with a_t = 1 for every entry. An empty history gives zeros.

Stages: the extractor is the user's, and runs once a request. User hands on h [L, E] and the mask
[L], item hands on W v [E]; attention and AUGRU run for every candidate, all L steps unrolled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn

from bundle.schema import FIRST_VALUE_INDEX
from model_export.models.history import HistoryColumns, HistoryEncoder, HistoryOptions

_MASKED = -1e9
"""A logit that softmax makes 0; finite, so that an all-masked history gives no NaN."""


class DIENOptions(HistoryOptions):
    """`auxiliary_weight` is alpha of equation 7; 0 leaves the auxiliary loss out."""

    encoder: Literal["dien"]
    auxiliary_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0


class DIEN(HistoryEncoder):
    """Extractor, attention, evolution; all states have the width of the embeddings."""

    def __init__(self, columns: HistoryColumns, embedding_width: int, options: DIENOptions) -> None:
        super().__init__(columns, embedding_width)
        self.auxiliary_weight = options.auxiliary_weight
        self.extractor = AttentionalGRU(embedding_width)
        self.attention = nn.Linear(embedding_width, embedding_width, bias=False)
        self.evolution = AttentionalGRU(embedding_width)
        self._auxiliary: torch.Tensor | None = None

    def user_stage(self, ids: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        history, mask = (x.flip(1) for x in self.embedded_history(ids, table))
        inputs = self.extractor.inputs(history)
        state = torch.zeros_like(history[:, 0])
        states = []
        for step in range(self.columns.length):
            state = self.extractor(inputs[:, step], state, mask[:, step : step + 1])
            states.append(state)
        interests = torch.stack(states, dim=1)
        if self.training and self.auxiliary_weight:
            self._auxiliary = self._auxiliary_loss(interests, history, mask, table)
        return torch.cat((interests.flatten(1), mask), dim=1)

    def _auxiliary_loss(
        self,
        interests: torch.Tensor,
        history: torch.Tensor,
        mask: torch.Tensor,
        table: torch.Tensor,
    ) -> torch.Tensor:
        now, following = interests[:, :-1], history[:, 1:]
        first = FIRST_VALUE_INDEX + self.columns.user_offset
        drawn = torch.randint(
            first, first + self.columns.values, following.shape[:2], device=table.device
        )
        other = nn.functional.embedding(drawn, table)
        right = nn.functional.logsigmoid((now * following).sum(dim=-1))
        wrong = nn.functional.logsigmoid(-(now * other).sum(dim=-1))
        defined = mask[:, :-1] * mask[:, 1:]
        return -((right + wrong) * defined).sum() / defined.sum().clamp(min=1)

    def extra_losses(self) -> Mapping[str, torch.Tensor]:
        if self._auxiliary is None or not self.training:
            return {}
        return {"interest": self.auxiliary_weight * self._auxiliary}

    def item_stage(self, ids: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        query: torch.Tensor = self.attention(self.embedded_item(ids, table))
        return query

    def interest(
        self, user: torch.Tensor, item: torch.Tensor, user_row: torch.Tensor
    ) -> torch.Tensor:
        length = self.columns.length
        interests = torch.unflatten(user[:, : length * self.width], 1, (length, self.width))
        mask = user[:, length * self.width :].index_select(0, user_row)
        inputs = self.evolution.inputs(interests)
        rows = interests.index_select(0, user_row)
        logits = torch.matmul(rows, item.unsqueeze(-1)).squeeze(-1) + (1 - mask) * _MASKED
        attention = torch.softmax(logits, dim=1) * mask
        state = torch.zeros_like(item)
        for step in range(length):
            of_step = inputs[:, step].index_select(0, user_row)
            state = self.evolution(of_step, state, attention[:, step : step + 1])
        return state


class AttentionalGRU(nn.Module):
    """One step of AUGRU; with attention 1, of a GRU. States and inputs are of one width H."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.of_input = nn.Linear(width, 3 * width)
        self.of_state = nn.Linear(width, 3 * width, bias=False)

    def inputs(self, xs: torch.Tensor) -> torch.Tensor:
        """The products of all inputs at once: [R, L, H] -> [R, L, 3 H], for u, r and h~."""
        products: torch.Tensor = self.of_input(xs)
        return products

    def forward(
        self, inputs: torch.Tensor, state: torch.Tensor, attention: torch.Tensor
    ) -> torch.Tensor:
        """inputs [R, 3 H] of `inputs`, state [R, H], attention [R, 1] -> the next state [R, H]."""
        width = state.shape[1]
        products = self.of_state(state)
        gates = torch.sigmoid(inputs[:, : 2 * width] + products[:, : 2 * width])
        update, reset = gates[:, :width] * attention, gates[:, width:]
        candidate = torch.tanh(inputs[:, 2 * width :] + reset * products[:, 2 * width :])
        return state + update * (candidate - state)
