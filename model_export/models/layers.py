"""Layers that the methods are built from: stacked linear layers, gates, towers.

"Stacked" layers hold G networks of one shape; their activations are G matrices [N, width].
G is the number of experts, of tasks or of gates. Each network's product is one of its own:
onnxruntime then packs its weights once, at load, and fuses bias and ReLU into it, and what one
product leaves is still in the second-level cache when the next one reads it. One batched product
for all has neither: on the `feed200` workload it took 1.2 times as long.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import nn

from model_export.models.attention_gate import AttentionLogits


class StackedLinear(nn.Module):
    """G linear layers side by side: y_g = W_g x_g + b_g.

    Initialised for ReLU (He et al., "Delving Deep into Rectifiers", ICCV 2015, equation 10), biases
    at 0. With the biases of `nn.Linear`, larger than the signal of young embeddings, a unit is on
    for all rows or for none, and a narrow tower may be dead before its first step.
    """

    def __init__(self, count: int, in_width: int, out_width: int) -> None:
        super().__init__()
        bound = math.sqrt(6 / in_width)
        self.weight = nn.Parameter(torch.empty(count, out_width, in_width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(count, out_width))

    def forward(self, xs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """G inputs float32 [N, in] -> G outputs float32 [N, out]."""
        layers = zip(xs, self.weight.unbind(), self.bias.unbind(), strict=True)
        return [nn.functional.linear(x, weight, bias) for x, weight, bias in layers]


class StackedLayers(nn.Module):
    """What follows the first linear layer of G networks: ReLU, then linear layers with ReLU.

    Args:
        count: number of networks, G.
        widths: output widths of all layers; the first is the width of the input.
        dropout: share of activations dropped in training.
    """

    def __init__(self, count: int, widths: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linears = stacked_linears(count, widths)

    def forward(self, first: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """G inputs float32 [N, widths[0]] before their ReLU -> G outputs [N, widths[-1]]."""
        xs = [self.dropout(torch.relu(x)) for x in first]
        for linear in self.linears:
            xs = [self.dropout(torch.relu(x)) for x in linear(xs)]
        return xs


class Gate(nn.Module):
    """Softmax over experts; a module of its own, so that a hook can watch the weights.

    Args:
        allowed: bool [G, E], the experts that each gate may select; all when None.
    """

    mask: torch.Tensor | None

    def __init__(self, allowed: torch.Tensor | None = None) -> None:
        super().__init__()
        mask = None
        if allowed is not None:
            mask = torch.zeros(allowed.shape).masked_fill(~allowed, -math.inf)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        """float32 [N, G, E] -> weights [N, G, E]; those of an expert not allowed are exactly 0."""
        return torch.softmax(logits if self.mask is None else logits + self.mask, dim=-1)


def mix(weights: torch.Tensor, experts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The gates' weighted sums of the experts: f_g = sum_e weights[g, e] experts[e].

    Args:
        weights: float32 [N, G, E]; or [G, E], the same in all rows.
        experts: E outputs float32 [N, H].

    Returns:
        G mixtures float32 [N, H].
    """
    return list(torch.matmul(weights, torch.stack(list(experts), dim=1)).unbind(dim=1))


class GatedExperts(nn.Module):
    """E experts and G gates over them, given what their common first linear layer gave.

    Args:
        experts: number of experts, E.
        gates: number of gates, G.
        widths: layer widths of an expert.
        dropout: share of an expert's activations dropped in training.
        allowed: bool [G, E], the experts that each gate may select; all when None.
        key_width: of attention gates; linear gates, in the first layer, when None.
    """

    def __init__(
        self,
        experts: int,
        gates: int,
        widths: Sequence[int],
        dropout: float,
        allowed: torch.Tensor | None = None,
        key_width: int | None = None,
    ) -> None:
        super().__init__()
        self.split = [widths[0]] * experts + ([] if key_width else [gates * experts])
        self.gate_shape = (gates, experts)
        self.experts = StackedLayers(experts, widths, dropout)
        self.attention = AttentionLogits(gates, widths[-1], key_width) if key_width else None
        self.gate = Gate(allowed)

    @property
    def first_width(self) -> int:
        """P: the first layers of all experts, then the logits of all linear gates."""
        return sum(self.split)

    def forward(self, first: torch.Tensor) -> list[torch.Tensor]:
        """float32 [N, P] -> each gate's mixture, G times float32 [N, widths[-1]]."""
        parts = torch.split(first, self.split, dim=1)
        _, experts = self.gate_shape
        outputs = self.experts(parts[:experts])
        if self.attention is not None:
            logits = self.attention(outputs)
        else:
            logits = torch.unflatten(parts[-1], 1, self.gate_shape)
        return mix(self.gate(logits), outputs)


class Towers(nn.Module):
    """A tower for each of T tasks: linear layers with ReLU between them, ending in one logit."""

    def __init__(self, tasks: int, widths: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linears = stacked_linears(tasks, (*widths, 1))

    def forward(self, xs: Sequence[torch.Tensor]) -> torch.Tensor:
        """An input float32 [N, widths[0]] for each of T tasks -> logits float32 [N, T]."""
        first, *others = self.linears
        ys: list[torch.Tensor] = first(xs)
        for linear in others:
            ys = linear([self.dropout(torch.relu(y)) for y in ys])
        return torch.cat(ys, dim=1)


def stacked_linears(count: int, widths: Sequence[int]) -> nn.ModuleList:
    """G networks' linear layers between these widths, a `StackedLinear` for each step."""
    pairs = itertools.pairwise(widths)
    return nn.ModuleList(StackedLinear(count, width, following) for width, following in pairs)
