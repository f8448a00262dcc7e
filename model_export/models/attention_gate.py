"""Gate logits by attention: a learned query of each gate against a key of each expert's output.

The idea is this project's own survey's; no paper is followed. Where a linear gate reads the input x
and knows experts by their place alone, this one looks at what the experts have made of x:

    logit of gate g for expert e = q_g . (K f_e(x)) / sqrt(d)        weights = softmax over e

q_g in R^d is learned for each gate, K in R^{d x H} for all experts together; f_e(x) is the
expert's output. A gate has no columns in the first layer then. q_g K is constant in serving, and
exporting folds it: one product of [E, H] with [H, G] for each row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn


class AttentionLogits(nn.Module):
    """The logits of G gates over experts with outputs of one width.

    Args:
        gates: G.
        expert_width: H.
        key_width: d.
    """

    def __init__(self, gates: int, expert_width: int, key_width: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(expert_width)
        self.queries = nn.Parameter(torch.randn(gates, key_width))
        self.keys = nn.Parameter(torch.empty(key_width, expert_width).uniform_(-bound, bound))

    def forward(self, experts: Sequence[torch.Tensor]) -> torch.Tensor:
        """E outputs float32 [N, H] -> logits float32 [N, G, E]."""
        selectors = torch.matmul(self.queries, self.keys) / math.sqrt(len(self.keys))
        outputs = torch.stack(list(experts), dim=1)
        return torch.matmul(outputs, selectors.T).transpose(1, 2)
