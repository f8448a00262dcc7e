"""Where the arithmetic of training runs, and in which precision."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

import torch

from model_export.errors import ConfigInvalid

DeviceName = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "bfloat16"]


def choose(name: DeviceName) -> torch.device:
    """The device: of `auto`, CUDA where there is one. Each process of a machine takes its own.

    Raises:
        ConfigInvalid: CUDA is asked for and not there.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ConfigInvalid("training.device: cuda: there is no CUDA device; use auto or cpu")
    if name == "cpu" or not available:
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def mixed(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """The context of a forward pass.

    With bfloat16, matrix products run in it while weights, sums and losses stay float32: it has the
    range of float32, so that losses need no scaling. `auto` is bfloat16 on a CUDA device that has
    it, and float32 elsewhere.
    """
    if precision == "auto":
        has_it = device.type == "cuda" and torch.cuda.is_bf16_supported()
        precision = "bfloat16" if has_it else "float32"
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use so many threads within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
