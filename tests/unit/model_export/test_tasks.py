"""Labels and masks: a task is defined only where it says so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from model_export.data.tasks import TaskDeclaration, labels_and_masks
from model_export.errors import DataInvalid

OUTCOMES = {
    "watched": np.array([1, 0, 1, 0], np.float32),
    "rating": np.array([5, np.nan, 3, np.nan], np.float32),
}


def test_masked_rows_are_neither_negatives_nor_zeros() -> None:
    tasks = [
        TaskDeclaration(name="watched", kind="binary"),
        TaskDeclaration(name="like", kind="binary", label="rating", at_least=4, where="watched"),
        TaskDeclaration(name="rating", kind="regression", where="watched"),
    ]
    labels, masks = labels_and_masks(tasks, OUTCOMES)
    assert labels.tolist() == [[1, 1, 5], [0, 0, 0], [1, 0, 3], [0, 0, 0]]
    defined = [[True, True, True], [True, False, False]]
    assert masks.tolist() == defined * 2
    assert labels.dtype == np.float32


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"name": "share", "kind": "binary"}, "share: no outcome 'share'; the data has watched"),
        ({"name": "rating", "kind": "regression"}, "rating: outcome 'rating' is nan in row 1"),
        ({"name": "rating", "kind": "regression", "where": "seen"}, "no outcome 'seen'"),
        (
            {"name": "like", "kind": "binary", "label": "rating", "where": "watched"},
            "like: outcome 'rating' is 5.0 in row 0, which is no label of a binary task",
        ),
    ],
)
def test_wrong_labels_are_named(task: dict[str, Any], message: str) -> None:
    with pytest.raises(DataInvalid, match=message):
        labels_and_masks([TaskDeclaration(**task)], OUTCOMES)


def test_over_the_entire_space_what_is_elsewhere_is_a_negative() -> None:
    task = TaskDeclaration(
        name="liked", kind="binary", label="rating", at_least=4, where="watched", entire_space=True
    )
    labels, masks = labels_and_masks([task], OUTCOMES)
    assert labels[:, 0].tolist() == [1, 0, 0, 0]
    assert masks.all()


def test_the_entire_space_is_that_of_a_condition() -> None:
    with pytest.raises(ValueError, match="entire_space: says what is elsewhere"):
        TaskDeclaration(name="watched", kind="binary", entire_space=True)
