"""AUC and GAUC against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from model_export.training.metrics import auc, gauc


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=60))
def test_auc_is_scikit_learn_s_with_ties(rows: list[tuple[bool, int]]) -> None:
    labels = np.array([label for label, _ in rows], np.float32)
    scores = np.array([score for _, score in rows], np.float32)
    if labels.min() == labels.max():
        assert auc(labels, scores) is None
    else:
        assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.booleans(), st.integers(0, 5)), min_size=1, max_size=80
    )
)
def test_gauc_is_the_row_weighted_auc_of_users_with_both_classes(
    rows: list[tuple[int, bool, int]],
) -> None:
    groups = np.array([group for group, _, _ in rows])
    labels = np.array([label for _, label, _ in rows], np.float32)
    scores = np.array([score for _, _, score in rows], np.float32)
    aucs, weights = [], []
    for group in np.unique(groups):
        own = groups == group
        if labels[own].min() < labels[own].max():
            aucs.append(roc_auc_score(labels[own], scores[own]))
            weights.append(own.sum())
    expected = np.average(aucs, weights=weights) if aucs else None
    found = gauc(labels, scores, groups)
    assert found == (None if expected is None else pytest.approx(expected))


def test_gauc_by_hand() -> None:
    groups = np.array([7, 7, 7, 7, 3, 3, 9])
    labels = np.array([1, 0, 0, 0, 0, 1, 1], np.float32)
    scores = np.array([0.5, 0.1, 0.5, 0.9, 0.2, 0.8, 0.1], np.float32)
    # User 7: above one, tied with one, below one of three: 1/2. User 3: 1. User 9: left out.
    assert gauc(labels, scores, groups) == pytest.approx((4 * 0.5 + 2 * 1.0) / 6)


def test_no_rows_have_no_auc() -> None:
    assert auc(np.empty(0, np.float32), np.empty(0, np.float32)) is None
