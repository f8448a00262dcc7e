"""From logits to scores: what each task's logit says, in the unit that is served.

Training knows all T tasks; the S served ones are a part of them, auxiliary tasks staying behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from model_export.losses import DEFAULTS, TaskKind, TaskLoss


@dataclass(frozen=True)
class Output:
    """One task's logit.

    Attributes:
        loss: that it is trained with; it says how the logit is read.
        logit_shift: added to the logit of a probability. log(w) undoes that negatives were kept
            with probability w, or weighted by it, in training: He et al., "Practical Lessons from
            Predicting Clicks on Ads at Facebook", ADKDD 2014, section 6.3: p = q / (q + (1-q)/w).
        served: whether the score is in the answer, or the task only helps to train the others.
    """

    loss: TaskLoss
    logit_shift: float = 0.0
    served: bool = True

    @classmethod
    def of_kind(cls, kind: TaskKind) -> Output:
        """The output of a task of which only the kind is known."""
        return cls(DEFAULTS[kind])


class TaskOutputs(nn.Module):
    """The transform of each task's logit, with the scale of its training labels."""

    label_mean: torch.Tensor
    label_std: torch.Tensor

    def __init__(self, outputs: Sequence[Output]) -> None:
        super().__init__()
        self.outputs = tuple(outputs)
        self.served = [task for task, output in enumerate(outputs) if output.served]
        self.register_buffer("label_mean", torch.zeros(len(outputs)))
        self.register_buffer("label_std", torch.ones(len(outputs)))

    def fit(self, labels: Sequence[npt.NDArray[np.float32]]) -> None:
        """Take the scales of the training labels: T arrays, each of the rows that define a task."""
        for task, (output, of_task) in enumerate(zip(self.outputs, labels, strict=True)):
            mean, std = output.loss.scale(of_task)
            self.label_mean[task], self.label_std[task] = mean, std

    def standardise(self, labels: torch.Tensor) -> torch.Tensor:
        """Labels [N, T] on the scale of the losses; binary labels stay as they are."""
        return (labels - self.label_mean) / self.label_std

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        """logits float32 [N, T] -> task_scores of the served tasks, float32 [N, S].

        A binary task's score is a probability, a regression task's is in its label's unit.
        """
        return self._scores(logits, self.served)

    def of_all(self, logits: torch.Tensor) -> torch.Tensor:
        """logits float32 [N, T] -> scores of all tasks, float32 [N, T]."""
        return self._scores(logits, range(len(self.outputs)))

    def units(self) -> npt.NDArray[np.float64]:
        """float64 [S]: what a served score's error is measured in; 1 for a probability."""
        units: npt.NDArray[np.float64] = self.label_std[self.served].numpy().astype(np.float64)
        return units

    def are_probabilities(self) -> npt.NDArray[np.bool_]:
        """bool [S], which served scores are probabilities."""
        return np.array([self.outputs[task].loss.score == "probability" for task in self.served])

    def _scores(self, logits: torch.Tensor, tasks: Sequence[int]) -> torch.Tensor:
        outputs = [self.outputs[task] for task in tasks]
        if len(tasks) < len(self.outputs):
            logits = torch.cat([logits[:, task : task + 1] for task in tasks], dim=1)
        if any(output.logit_shift for output in outputs):
            logits = logits + logits.new_tensor([output.logit_shift for output in outputs])
        kinds = {output.loss.score for output in outputs}
        scores = torch.sigmoid(logits)
        if kinds == {"probability"}:
            return scores
        mean, std = self.label_mean[list(tasks)], self.label_std[list(tasks)]
        for kind, of_kind in (
            ("affine", logits * std + mean),
            ("exponential", torch.exp(logits) * std),
        ):
            if kind in kinds:
                is_kind = [output.loss.score == kind for output in outputs]
                scores = torch.where(torch.tensor(is_kind, device=logits.device), of_kind, scores)
        return scores
