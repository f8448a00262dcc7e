"""What every loss has: a value for each row, and how its logit is read once it is trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict

TaskKind = Literal["binary", "regression"]
Score = Literal["probability", "affine", "exponential"]
"""probability: sigmoid(logit); affine: mean + deviation * logit; exponential: scale * exp(logit)"""

Labels = npt.NDArray[np.float32]


class TaskLoss(BaseModel, ABC):
    """A loss of one task, and its options.

    Attributes:
        kind: of the tasks it is for.
        score: what its logit says.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: ClassVar[TaskKind]
    score: ClassVar[Score]

    @abstractmethod
    def per_row(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """float32 [N] logits and labels on the loss's own scale -> losses float32 [N], >= 0."""

    def scale(self, labels: Labels) -> tuple[float, float]:
        """(offset, unit) of the training labels [N]: the loss sees (label - offset) / unit."""
        return 0.0, 1.0

    def wrong(self, labels: Labels) -> npt.NDArray[np.bool_]:
        """Which labels [N] the loss is not made for."""
        wrong: npt.NDArray[np.bool_] = ~np.isfinite(labels)
        return wrong


class BinaryLoss(TaskLoss, ABC):
    """A loss of labels 0 and 1, whose logit is that of a probability."""

    kind: ClassVar[TaskKind] = "binary"
    score: ClassVar[Score] = "probability"

    def wrong(self, labels: Labels) -> npt.NDArray[np.bool_]:
        wrong: npt.NDArray[np.bool_] = (labels != 0) & (labels != 1)
        return wrong


class RegressionLoss(TaskLoss, ABC):
    """A loss of real labels, standardised by their mean and deviation in training."""

    kind: ClassVar[TaskKind] = "regression"
    score: ClassVar[Score] = "affine"

    def scale(self, labels: Labels) -> tuple[float, float]:
        wide: npt.NDArray[Any] = labels.astype(np.float64)
        return (float(wide.mean()), float(wide.std()) or 1.0) if len(wide) else (0.0, 1.0)
