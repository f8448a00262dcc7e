"""From logits to scores: units, the correction for sampled negatives, auxiliary tasks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from model_export.data.tasks import TaskDeclaration
from model_export.models.outputs import TaskOutputs

TASKS = [
    TaskDeclaration.model_validate(fields)
    for fields in (
        {"name": "click", "kind": "binary", "negatives": {"keep": 0.1}},
        {"name": "like", "kind": "binary", "serve": False},
        {"name": "rating", "kind": "regression"},
        {"name": "seconds", "kind": "regression", "loss": {"name": "weighted_logistic"}},
    )
]


def _outputs() -> TaskOutputs:
    outputs = TaskOutputs([task.output() for task in TASKS])
    labels = np.array([[0, 1, 1, 30], [1, 0, 5, 0]], np.float32)
    outputs.fit(list(labels.T))
    return outputs


def test_each_score_is_in_its_own_unit_and_auxiliary_tasks_stay_behind() -> None:
    logits = torch.tensor([[0.0, 0.0, 1.0, math.log(2.0)]])
    outputs = _outputs()
    q = 0.5
    click = q / (q + (1 - q) / 0.1)  # He et al., section 6.3
    assert outputs(logits)[0].tolist() == pytest.approx([click, 3 + 2 * 1, 30 * 2])
    assert outputs.of_all(logits)[0].tolist() == pytest.approx([click, 0.5, 5, 60])
    assert outputs.are_probabilities().tolist() == [True, False, False]
    assert outputs.units().tolist() == pytest.approx([1, 2, 30])


def test_labels_are_brought_to_the_scale_of_the_losses() -> None:
    labels = torch.tensor([[1.0, 0.0, 5.0, 60.0]])
    assert _outputs().standardise(labels)[0].tolist() == [1, 0, 1, 2]


@pytest.mark.parametrize("keep", [0.01, 0.3, 1.0])
def test_the_correction_is_the_papers_formula(keep: float) -> None:
    task = TaskDeclaration.model_validate(
        {"name": "click", "kind": "binary", "negatives": {"keep": keep}}
    )
    q = torch.linspace(0.01, 0.99, 50).unsqueeze(1)
    found = TaskOutputs([task.output()])(torch.logit(q))
    torch.testing.assert_close(found, q / (q + (1 - q) / keep))
