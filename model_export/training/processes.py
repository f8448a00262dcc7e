"""The processes that train together: one, or those that torchrun started.

    torchrun --nproc-per-node 2 -m multirank train examples/movielens.yaml

Every process reads the data and trains on its share of each batch; DistributedDataParallel averages
the gradients. Losses are divided by the batch's rows over all processes, so that the average is the
gradient of the whole batch: as one process gives it, but for the order of the sums.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist

from model_export.errors import ConfigInvalid

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process among those that train together."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process evaluates, writes files and prints."""
        return self.rank == 0

    def share(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """This process's part of a batch's rows."""
        return np.array_split(rows, self.count)[self.rank]

    def mean(self, tensor: torch.Tensor) -> torch.Tensor:
        """The mean over all processes; the tensor itself where there is one."""
        if self.count == 1:
            return tensor
        total = tensor.clone()
        dist.all_reduce(total)
        return total / self.count

    def from_first(self, value: T) -> T:
        """What the first process holds."""
        if self.count == 1:
            return value
        held = [value]
        dist.broadcast_object_list(held, src=0)
        return held[0]


def refuse_several(command: str) -> None:
    """Some commands are for one process.

    Raises:
        ConfigInvalid: torchrun started several.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigInvalid(
            f"{command}: for one process; torchrun `multirank train`, then export and publish"
        )


@contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """Meet the other processes that torchrun started; leave them at the end."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes()
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), count)
    finally:
        dist.destroy_process_group()
