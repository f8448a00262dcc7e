"""Checkpoints: all that a training needs to go on after the epoch it was written in.

Order, sampling and dropout are drawn from generators seeded by (seed, epoch), so that none of their
states is in it: what follows a checkpoint is what would have followed without a break.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from model_export.errors import RunUnusable

FILE = "checkpoint.pt"


@dataclass
class Checkpoint:
    """The state after an epoch.

    Attributes:
        epochs: the record of each epoch so far, as in metrics.jsonl.
        model, optimiser, weighting: their state.
        best_model: the weights of the best epoch. best: its objective.
        since_best: epochs since then.
    """

    epochs: list[dict[str, Any]]
    model: dict[str, Any]
    optimiser: dict[str, Any]
    weighting: dict[str, Any]
    best_model: dict[str, Any]
    best: float
    since_best: int

    def save(self, directory: Path) -> None:
        """Replace the checkpoint of a run directory at once: a break leaves the one before."""
        unfinished = directory / f"{FILE}.part"
        torch.save(asdict(self), unfinished)
        os.replace(unfinished, directory / FILE)

    @classmethod
    def load(cls, directory: Path) -> Checkpoint | None:
        """The checkpoint of a run directory; None where there is none.

        Raises:
            RunUnusable: the file is damaged.
        """
        path = directory / FILE
        if not path.is_file():
            return None
        try:
            return cls(**torch.load(path, map_location="cpu", weights_only=True))
        except Exception as error:  # torch raises what its unpickler meets
            raise RunUnusable(f"{path}: damaged, train again without --resume: {error}") from error
