"""Losses: one a file, its options and its formula. `AnyLoss` is what a configuration can name."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from model_export.losses.base import Score, TaskKind, TaskLoss
from model_export.losses.binary_cross_entropy import BinaryCrossEntropy
from model_export.losses.focal import Focal
from model_export.losses.huber import Huber
from model_export.losses.masked import task_losses
from model_export.losses.quantile import Quantile
from model_export.losses.squared_error import SquaredError
from model_export.losses.weighted_logistic import WeightedLogistic

AnyLoss = Annotated[
    BinaryCrossEntropy | Focal | SquaredError | Huber | Quantile | WeightedLogistic,
    Field(discriminator="name"),
]

DEFAULTS: dict[TaskKind, TaskLoss] = {
    "binary": BinaryCrossEntropy(),
    "regression": SquaredError(),
}

__all__ = ["DEFAULTS", "AnyLoss", "Score", "TaskKind", "TaskLoss", "task_losses"]
