"""Calibrated outputs: the last step of the joint graph, so that nobody can forget it."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from model_export.calibration.methods import Curve, Platt
from model_export.models.outputs import TaskOutputs


class CalibratedOutputs(TaskOutputs):
    """The outputs of a network, some of whose probabilities are calibrated.

    Args:
        outputs: of the trained network.
        curves: by the task's place among all T tasks.
    """

    def __init__(self, outputs: TaskOutputs, curves: Mapping[int, Curve]) -> None:
        super().__init__(outputs.outputs)
        self.load_state_dict(outputs.state_dict())
        self._curves = dict(curves)

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        """logits float32 [N, T] -> task_scores of the served tasks, float32 [N, S]."""
        scores = super().forward(logits)
        columns = []
        for column, task in enumerate(self.served):
            score, curve = scores[:, column : column + 1], self._curves.get(task)
            if isinstance(curve, Platt):
                shift = self.outputs[task].logit_shift
                logit = logits[:, task : task + 1] + shift
                score = torch.sigmoid(logit * curve.slope + curve.intercept)
            elif curve is not None:
                score = _along(score, curve.scores, curve.probabilities)
            columns.append(score)
        return torch.cat(columns, dim=1)


def _along(
    score: torch.Tensor, knots: tuple[float, ...], probabilities: tuple[float, ...]
) -> torch.Tensor:
    """Piecewise linear: score [N, 1] -> [N, 1], the climbs of all K segments passed added up.

    Two products and a clip for any number of knots, where a search would be one operator each.
    """
    at = torch.tensor(knots, dtype=torch.float64)
    height = torch.tensor(probabilities, dtype=torch.float64)
    width = at.diff()
    slope = (height.diff() / width).to(score.dtype)
    passed = torch.clamp(score - at[:-1].to(score.dtype), min=0)
    return torch.minimum(passed, width.to(score.dtype)) @ slope[:, None]
