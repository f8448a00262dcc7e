"""The shallow tower for position bias, which any architecture can have beside its network.

Zhao et al., "Recommending What Video to Watch Next: A Multitask Ranking System", RecSys 2019, the
section on position and selection biases: a shallow tower reads the position at which a candidate
was shown, and what it gives is added to the main tower's logit. In training the position is dropped
at random, as in serving it is always missing, and "missing" has weights of its own.

The paper's tower reads the device type as well; this one reads the position alone, so the tower is
a table of logits, and an exported graph holds only its row for "missing".
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

_MISSING = 0


class PositionBiasOptions(BaseModel):
    """How positions count.

    Attributes:
        positions: how many are told apart, from the top; those further down share the last one.
        dropout: share of rows whose position is taken for missing in training.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    positions: Annotated[int, Field(ge=1, le=10_000)]
    dropout: Annotated[float, Field(gt=0, lt=1)] = 0.1


class PositionBias(nn.Module):
    """A logit for each position and task, float32 [positions + 1, T]; row 0 is "missing"."""

    def __init__(self, tasks: int, options: PositionBiasOptions) -> None:
        super().__init__()
        self.positions = options.positions
        self.dropout = options.dropout
        self.weight = nn.Parameter(torch.zeros(options.positions + 1, tasks))

    def forward(self, positions: torch.Tensor | None) -> torch.Tensor:
        """positions int64 [N] from 0 -> bias [N, T]; None: missing in all rows, bias [T]."""
        if positions is None:
            return self.weight[_MISSING]
        row = positions.clamp(max=self.positions - 1) + 1
        if self.training:
            dropped = torch.rand(row.shape, device=row.device) < self.dropout
            row = row.masked_fill(dropped, _MISSING)
        return nn.functional.embedding(row, self.weight)
