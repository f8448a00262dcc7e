"""SNR-Trans and SNR-Aver: sub-networks whose connections are learned, and mostly closed.

Ma et al., "SNR: Sub-Network Routing for Flexible Parameter Sharing in Multi-Task Learning",
AAAI 2019. On each level S sub-networks u_1..u_S stand side by side. Input v_i of the next level (of
its sub-networks, in the end of the task towers) is, with a coding variable z_ij a connection,

    SNR-Trans   v_i = sum_j z_ij W_ij u_j        SNR-Aver   v_i = sum_j z_ij u_j

z is relaxed to the hard concrete distribution of Louizos et al., "Learning Sparse Neural Networks
through L0 Regularization", ICLR 2018, equations 10 to 13:

    training   s = sigmoid((log u - log(1 - u) + log alpha) / beta), u ~ U(0, 1), new in each step
               z = min(1, max(0, s (zeta - gamma) + gamma))
    loss       l0_weight * sum_ij P(z_ij != 0)
               P(z != 0) = sigmoid(log alpha - beta log(-gamma / zeta))
    serving    z = min(1, max(0, sigmoid(log alpha) (zeta - gamma) + gamma))

An exported graph has z in its weights, and no product for a connection whose z is 0.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self

import torch
from pydantic import Field
from torch import nn

from bundle.manifest import Task
from bundle.schema import FeatureSchema
from model_export.models.base import ArchitectureOptions, Layers, Width
from model_export.models.first_layer import FirstLayerModel
from model_export.models.layers import StackedLayers, StackedLinear, Towers, mix

BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1
"""As Louizos et al. set them: temperature, and the interval that is clipped to [0, 1]."""


class SNROptions(ArchitectureOptions):
    """Sizes.

    Attributes:
        subnetworks: S, on each level.
        levels: for each level, the layer widths of its sub-networks.
        l0_weight: of the expected number of open connections in the objective.
    """

    family: Literal["snr_trans", "snr_aver"]
    subnetworks: Width
    levels: Annotated[tuple[Layers, ...], Field(min_length=1)]
    l0_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-3


class SNR(FirstLayerModel):
    """Levels of sub-networks, a routing above each, T towers."""

    def __init__(self, schema: FeatureSchema, tasks: Sequence[Task], options: SNROptions) -> None:
        first, *others = options.levels
        count, transform = options.subnetworks, options.family == "snr_trans"
        super().__init__(schema, tasks, options, first_width=count * first[0])
        self.subnetworks = count
        self.first_level = StackedLayers(count, first, options.dropout)
        below = [level[-1] for level in options.levels]
        self.levels = nn.ModuleList(
            nn.Sequential(
                StackedLinear(count, in_width, level[0]),
                StackedLayers(count, level, options.dropout),
            )
            for in_width, level in zip(below, others, strict=False)
        )
        targets = [count] * len(others) + [len(tasks)]
        self.routings = nn.ModuleList(
            Routing(target, count, width, transform)
            for target, width in zip(targets, below, strict=True)
        )
        self.towers = Towers(len(tasks), (below[-1], *options.tower_layers), options.dropout)
        self.l0_weight = options.l0_weight

    def logits_from_first(self, first: torch.Tensor) -> torch.Tensor:
        outputs = self.first_level(first.chunk(self.subnetworks, dim=1))
        *between, last = self.routings
        for routing, level in zip(between, self.levels, strict=True):
            outputs = level(routing(outputs))
        logits: torch.Tensor = self.towers(last(outputs))
        return logits

    def extra_losses(self) -> Mapping[str, torch.Tensor]:
        expected = [routing.gates.open().sum() for routing in self._routings()]
        return {**super().extra_losses(), "l0": self.l0_weight * torch.stack(expected).sum()}

    def for_serving(self) -> Self:
        """The same network, its weights shared, with the open connections alone."""
        fixed = copy.copy(self)
        routings = nn.ModuleList(FixedRouting(routing) for routing in self._routings())
        fixed._modules = {**self._modules, "routings": routings}
        return fixed

    def _routings(self) -> list[Routing]:
        return [routing for routing in self.routings if isinstance(routing, Routing)]


class HardConcrete(nn.Module):
    """Coding variables z, float32 [targets, sources], each in [0, 1] and often exactly 0 or 1."""

    def __init__(self, targets: int, sources: int) -> None:
        super().__init__()
        self.log_alpha = nn.Parameter(0.01 * torch.randn(targets, sources))

    def forward(self) -> torch.Tensor:
        """A sample in training, otherwise the deterministic values."""
        if not self.training:
            return _stretched(torch.sigmoid(self.log_alpha))
        u = torch.rand_like(self.log_alpha).clamp(min=torch.finfo(torch.float32).tiny)
        logits = torch.log(u) - torch.log1p(-u) + self.log_alpha
        return _stretched(torch.sigmoid(logits / BETA))

    def open(self) -> torch.Tensor:
        """P(z != 0): float32 [targets, sources]."""
        return torch.sigmoid(self.log_alpha - BETA * math.log(-GAMMA / ZETA))


class Routing(nn.Module):
    """From the outputs of `sources` sub-networks to the inputs of `targets`, all of one width."""

    def __init__(self, targets: int, sources: int, width: int, transform: bool) -> None:
        super().__init__()
        self.gates = HardConcrete(targets, sources)
        self.weight: nn.Parameter | None = None
        if transform:
            bound = 1 / math.sqrt(sources * width)
            weight = torch.empty(targets, width, sources, width).uniform_(-bound, bound)
            self.weight = nn.Parameter(weight)

    def forward(self, outputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """S outputs float32 [N, width] -> an input [N, width] for each target."""
        z = self.gates()
        if self.weight is None:
            return mix(z, outputs)
        together = torch.cat(list(outputs), dim=1)
        matrices = (z[:, None, :, None] * self.weight).flatten(2)
        return [nn.functional.linear(together, matrix) for matrix in matrices]


class FixedRouting(nn.Module):
    """A routing with its deterministic z; a connection with z = 0 is not there."""

    def __init__(self, routing: Routing) -> None:
        super().__init__()
        with torch.no_grad():
            z = _stretched(torch.sigmoid(routing.gates.log_alpha))
            self.z = z.tolist()
            self.sources = [row.nonzero().flatten().tolist() for row in z]
            self.matrices = None if routing.weight is None else self._matrices(z, routing.weight)

    def _matrices(self, z: torch.Tensor, weight: torch.Tensor) -> nn.ParameterList:
        """Of each target, the z W of its open connections side by side."""
        scaled = z[:, None, :, None] * weight
        return nn.ParameterList(
            nn.Parameter(matrix[:, sources].flatten(1), requires_grad=False)
            for matrix, sources in zip(scaled, self.sources, strict=True)
        )

    def forward(self, outputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """As `Routing`."""
        return [self._input(target, outputs) for target in range(len(self.z))]

    def _input(self, target: int, outputs: Sequence[torch.Tensor]) -> torch.Tensor:
        sources = self.sources[target]
        if not sources:
            return torch.zeros_like(outputs[0])
        if self.matrices is not None:
            together = torch.cat([outputs[source] for source in sources], dim=1)
            return nn.functional.linear(together, self.matrices[target])
        weighted = [self.z[target][source] * outputs[source] for source in sources]
        total: torch.Tensor = functools.reduce(torch.add, weighted)
        return total


def _stretched(s: torch.Tensor) -> torch.Tensor:
    """From (0, 1) to (gamma, zeta), and clipped to [0, 1]."""
    return (s * (ZETA - GAMMA) + GAMMA).clamp(0.0, 1.0)
