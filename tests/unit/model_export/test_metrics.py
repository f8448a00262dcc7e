"""Log loss, calibration error and NDCG against scikit-learn and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import ndcg_score

from model_export.training.metrics import calibration_error, log_loss, ndcg

EMPTY = np.zeros(0, np.float32)


def test_log_loss_is_scikit_learn_s() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random(200) < 0.3).astype(np.float32)
    probabilities = rng.uniform(0.01, 0.99, 200).astype(np.float32)
    assert log_loss(labels, probabilities) == pytest.approx(
        sklearn_log_loss(labels, probabilities), rel=1e-5
    )
    sure_and_wrong = np.array([1.0], np.float32)
    assert log_loss(np.zeros(1, np.float32), sure_and_wrong) == pytest.approx(-math.log(1e-7))
    assert log_loss(EMPTY, EMPTY) is None


def test_calibration_error_by_hand() -> None:
    """Fifteen bins of two rows: half of them 0.2 too sure, half of them right."""
    probabilities = np.repeat(np.linspace(0.2, 0.9, 15), 2).astype(np.float32)
    labels = np.tile([1.0, 0.0], 15).astype(np.float32)  # a mean of 0.5 in each bin
    expected = np.abs(np.linspace(0.2, 0.9, 15) - 0.5).mean()
    assert calibration_error(labels, probabilities) == pytest.approx(expected, rel=1e-5)
    assert calibration_error(EMPTY, EMPTY) is None


def test_calibrated_probabilities_have_hardly_any_error() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.random(100_000).astype(np.float32)
    labels = (rng.random(100_000) < probabilities).astype(np.float32)
    error = calibration_error(labels, probabilities)
    assert error is not None
    assert error < 0.01


@pytest.mark.parametrize("k", [1, 3, 10])
def test_ndcg_is_scikit_learn_s_mean_over_lists(k: int) -> None:
    rng = np.random.default_rng(k)
    lists = rng.integers(0, 12, 90)
    gains, scores = rng.integers(0, 4, 90).astype(np.float32), rng.random(90).astype(np.float32)
    each = [
        ndcg_score(gains[None, lists == one], scores[None, lists == one], k=k)
        for one in np.unique(lists)
        if (lists == one).sum() > 1 and gains[lists == one].max() > 0
    ]
    assert ndcg(gains, scores, lists, k) == pytest.approx(np.mean(each))


def test_ndcg_is_none_where_nothing_can_be_ranked() -> None:
    one, two = np.array([1.0], np.float32), np.array([1.0, -1.0], np.float32)
    alone, together = np.zeros(1, np.int64), np.zeros(2, np.int64)
    assert ndcg(one, one, alone, 10) is None
    assert ndcg(two, two, together, 10) is None
    assert ndcg(np.zeros(2, np.float32), two, together, 10) is None
    assert ndcg(EMPTY, EMPTY, np.zeros(0, np.int64), 10) is None
