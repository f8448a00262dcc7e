"""Which expert serves which task: the mean weights of every gate over the rows that pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from model_export.models.layers import Gate

GateUsage = dict[str, list[list[float]]]
"""Name of a gate module -> mean weight [G, E] of each of its gates on each expert."""


@contextmanager
def watched(model: nn.Module) -> Iterator[GateUsage]:
    """Watch the gates of `model`; what comes out is filled when the block ends."""
    sums: dict[str, torch.Tensor] = {}
    rows: dict[str, int] = {}
    usage: GateUsage = {}

    def watch(name: str) -> Any:
        def hook(module: nn.Module, inputs: object, weights: torch.Tensor) -> None:
            total = weights.detach().sum(dim=0, dtype=torch.float64)
            sums[name] = sums[name] + total if name in sums else total
            rows[name] = rows.get(name, 0) + len(weights)

        return hook

    hooks = [
        module.register_forward_hook(watch(name))
        for name, module in model.named_modules()
        if isinstance(module, Gate)
    ]
    try:
        yield usage
    finally:
        for hook in hooks:
            hook.remove()
    usage.update({name: (total / rows[name]).tolist() for name, total in sums.items()})
