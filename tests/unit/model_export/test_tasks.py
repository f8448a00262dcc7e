"""Labels and masks: a task is defined only where it says so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from model_export.data.impressions import Impressions
from model_export.data.tasks import TaskDeclaration, labels_and_masks
from model_export.data.training_labels import check_learnable
from model_export.errors import DataInvalid

OUTCOMES = {
    "watched": np.array([1, 0, 1, 0], np.float32),
    "rating": np.array([5, np.nan, 3, np.nan], np.float32),
}


def part() -> Impressions:
    rows = np.arange(4)
    return Impressions({}, {}, {}, rows, rows, OUTCOMES, rows, origin="views.csv")


def test_masked_rows_are_neither_negatives_nor_zeros() -> None:
    tasks = [
        TaskDeclaration(name="watched", kind="binary"),
        TaskDeclaration(name="like", kind="binary", label="rating", at_least=4, where="watched"),
        TaskDeclaration(name="rating", kind="regression", where="watched"),
    ]
    labels, masks = labels_and_masks(tasks, part())
    assert labels.tolist() == [[1, 1, 5], [0, 0, 0], [1, 0, 3], [0, 0, 0]]
    defined = [[True, True, True], [True, False, False]]
    assert masks.tolist() == defined * 2
    assert labels.dtype == np.float32


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"name": "share", "kind": "binary"}, "share: no outcome 'share'; the data has watched"),
        (
            {"name": "rating", "kind": "regression"},
            "views.csv, row 2: tasks: rating: outcome 'rating' is nan",
        ),
        ({"name": "rating", "kind": "regression", "where": "seen"}, "no outcome 'seen'"),
        (
            {"name": "like", "kind": "binary", "label": "rating", "where": "watched"},
            "views.csv, row 1: tasks: like: outcome 'rating' is 5.0, which is no label of a binary",
        ),
        (
            {"name": "rating", "kind": "regression", "where": "watched", "maximum": 4},
            r"row 1: tasks: rating: outcome 'rating' is 5.0, .* a number in \[, 4\]",
        ),
        (
            {"name": "rating", "kind": "regression", "where": "watched", "minimum": 4},
            r"row 3: tasks: rating: outcome 'rating' is 3.0, .* a number in \[4, \]",
        ),
    ],
)
def test_wrong_labels_are_named(task: dict[str, Any], message: str) -> None:
    with pytest.raises(DataInvalid, match=message):
        labels_and_masks([TaskDeclaration(**task)], part())


@pytest.mark.parametrize(
    ("positives", "defined", "message"),
    [
        (0, 7, "views.csv: tasks: share: all 7 training labels in 'share' are 0"),
        (7, 7, "all 7 training labels in 'share' are 1"),
        (0, 0, "no training row has a label in 'share'"),
    ],
)
def test_a_task_with_nothing_to_learn_is_told(positives: int, defined: int, message: str) -> None:
    task = TaskDeclaration(name="share", kind="binary")
    with pytest.raises(DataInvalid, match=message):
        check_learnable([task], [positives], [defined], "views.csv")
    check_learnable([task], [3], [7], "views.csv")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "regression", "loss": {"name": "focal"}}, "is for binary tasks"),
        ({"kind": "binary", "loss": {"name": "huber"}}, "is for regression tasks"),
        ({"kind": "binary", "maximum": 3}, "labels of a binary task are 0 and 1"),
        (
            {"kind": "binary", "loss": {"name": "focal"}, "negatives": {"keep": 0.1}},
            "can be corrected for only with binary_cross_entropy",
        ),
        ({"kind": "regression", "negatives": {"keep": 0.1}}, "only with binary_cross_entropy"),
    ],
)
def test_what_does_not_go_together_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TaskDeclaration(name="x", **fields)


def test_over_the_entire_space_what_is_elsewhere_is_a_negative() -> None:
    task = TaskDeclaration(
        name="liked", kind="binary", label="rating", at_least=4, where="watched", entire_space=True
    )
    labels, masks = labels_and_masks([task], part())
    assert labels[:, 0].tolist() == [1, 0, 0, 0]
    assert masks.all()


def test_the_entire_space_is_that_of_a_condition() -> None:
    with pytest.raises(ValueError, match="entire_space: says what is elsewhere"):
        TaskDeclaration(name="watched", kind="binary", entire_space=True)
