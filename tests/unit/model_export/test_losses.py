"""Losses against closed forms: their values, and where their minima are."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from model_export.losses import DEFAULTS, TaskLoss, task_losses
from model_export.losses.binary_cross_entropy import BinaryCrossEntropy
from model_export.losses.focal import Focal
from model_export.losses.huber import Huber
from model_export.losses.quantile import Quantile
from model_export.losses.squared_error import SquaredError
from model_export.losses.weighted_logistic import WeightedLogistic

BOTH = (DEFAULTS["binary"], DEFAULTS["regression"])


def _losses(
    logits: torch.Tensor, labels: torch.Tensor, masks: torch.Tensor, negative: float = 1.0
) -> torch.Tensor:
    return task_losses(BOTH, logits, labels, masks, [negative, 1.0], masks.sum(dim=0))


def _minimum(loss: TaskLoss, labels: list[float]) -> float:
    """The logit at which the mean loss of constant predictions is least."""
    observed = torch.tensor(labels, dtype=torch.float64)
    logit = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([logit], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        value = loss.per_row(logit.expand(len(observed)), observed).mean()
        torch.autograd.backward(value)
        return value

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return float(logit.detach())


def test_closed_forms_over_defined_rows() -> None:
    logits = torch.tensor([[0.0, 3.0], [2.0, -1.0], [9.0, 9.0]])
    labels = torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    masks = torch.tensor([[True, True], [True, True], [False, False]])
    cross_entropy = (math.log(2) + math.log1p(math.exp(2.0))) / 2
    losses = _losses(logits, labels, masks)
    torch.testing.assert_close(losses, torch.tensor([cross_entropy, (4.0 + 4.0) / 2]))


def test_large_logits_do_not_overflow() -> None:
    logits = torch.tensor([[1000.0, 0.0]], requires_grad=True)
    losses = _losses(logits, torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool))
    torch.autograd.backward(losses.sum())
    assert losses.tolist() == [1000.0, 0.0]
    assert logits.grad is not None
    assert logits.grad[0, 0] == 1.0


def test_a_masked_row_has_no_part_even_when_it_is_infinite() -> None:
    logits = torch.tensor([[0.0, math.inf], [0.0, 1.0]], requires_grad=True)
    masks = torch.tensor([[True, False], [True, True]])
    losses = _losses(logits, torch.zeros(2, 2), masks)
    torch.autograd.backward(losses.sum())
    assert losses[1] == 1.0
    assert logits.grad is not None
    assert logits.grad[0, 1] == 0.0


def test_a_task_defined_nowhere_has_loss_0() -> None:
    masks = torch.tensor([[True, False]])
    assert _losses(torch.ones(1, 2), torch.zeros(1, 2), masks)[1] == 0


def test_weighted_negatives_count_less() -> None:
    logits, labels = torch.zeros(4, 2), torch.tensor([[1.0, 0], [0, 0], [0, 0], [0, 0]])
    losses = _losses(logits, labels, torch.ones(4, 2, dtype=torch.bool), negative=0.5)
    assert losses[0].item() == pytest.approx(math.log(2) * (1 + 3 * 0.5) / 4)


def test_focal_loss_is_the_paper_s_equation() -> None:
    """p = 0.9: -0.25 (0.1)^2 log 0.9 where it was a positive, -0.75 0.9^2 log 0.1 where not."""
    logit = torch.tensor([math.log(9.0)] * 2)
    labels = torch.tensor([1.0, 0.0])
    found = Focal(name="focal", gamma=2, alpha=0.25).per_row(logit, labels)
    expected = [-0.25 * 0.1**2 * math.log(0.9), -0.75 * 0.9**2 * math.log(0.1)]
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


def test_focal_loss_without_gamma_is_cross_entropy() -> None:
    logits, labels = torch.linspace(-4, 4, 9), torch.tensor([0.0, 1, 0, 1, 0, 1, 0, 1, 0])
    torch.testing.assert_close(
        Focal(name="focal", gamma=0).per_row(logits, labels),
        BinaryCrossEntropy().per_row(logits, labels),
    )


def test_huber_is_squared_near_and_linear_far() -> None:
    found = Huber(name="huber", delta=2).per_row(
        torch.tensor([0.0, 0.0]), torch.tensor([1.0, -10.0])
    )
    assert found.tolist() == [0.5, 2 * (10 - 1)]


def test_where_the_minima_are() -> None:
    assert _minimum(BinaryCrossEntropy(), [1, 0, 0, 0]) == pytest.approx(math.log(1 / 3), abs=1e-4)
    assert _minimum(SquaredError(), [1, 2, 6]) == pytest.approx(3, abs=1e-4)
    # one far outlier moves the Huber minimum by delta / 2 only: 2 e = delta
    assert _minimum(Huber(name="huber", delta=1), [0, 0, 1000]) == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("tau", [0.1, 0.5, 0.9])
def test_the_quantile_loss_is_least_at_the_quantile(tau: float) -> None:
    labels = torch.arange(1001, dtype=torch.float64) / 1000
    logits = torch.linspace(0, 1, 201, dtype=torch.float64)
    loss = Quantile(name="quantile", tau=tau)
    means = [loss.per_row(logit.expand(1001), labels).mean() for logit in logits]
    assert logits[int(torch.stack(means).argmin())] == pytest.approx(tau, abs=0.006)


def test_weighted_logistic_regression_learns_the_watch_time_of_the_paper() -> None:
    """Odds are sum(T) / (N - k): three of eight rows watched, 60 seconds in all."""
    seconds = np.array([10, 20, 30, 0, 0, 0, 0, 0], np.float32)
    loss = WeightedLogistic(name="weighted_logistic")
    offset, unit = loss.scale(seconds)
    assert (offset, unit) == (0, 20)
    odds = math.exp(_minimum(loss, (seconds / unit).tolist()))
    assert odds * unit == pytest.approx(60 / 5, rel=1e-3)


def test_which_labels_a_loss_is_not_made_for() -> None:
    labels = np.array([0, 1, 2, -1, np.nan, np.inf], np.float32)
    assert BinaryCrossEntropy().wrong(labels).tolist() == [False, False, True, True, True, True]
    assert SquaredError().wrong(labels).tolist() == [False] * 4 + [True] * 2
    watch = WeightedLogistic(name="weighted_logistic").wrong(labels)
    assert watch.tolist() == [False] * 3 + [True] * 3
