"""Held-out metrics of each task, over the rows where it is defined.

AUC is the probability that a random positive row is scored above a random negative one, ties
counting half. GAUC (Zhu et al., "Optimized Cost per Click in Taobao Display Advertising", KDD 2017,
equation 11) is the AUC within each user, weighted by the user's rows; users whose rows are all of
one class have none and are left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from bundle.manifest import Task
from model_export.data.encoded import EncodedSet
from model_export.models.base import MultiTaskModel

Metrics = dict[str, dict[str, float | None]]
"""Task -> metric -> value; None where the rows do not define it."""

_ROWS_AT_ONCE = 16384


def evaluate(model: MultiTaskModel, tasks: Sequence[Task], held_out: EncodedSet) -> Metrics:
    """AUC and GAUC of binary tasks, RMSE of regression tasks."""
    scores = predict(model, held_out)
    metrics: Metrics = {}
    for column, task in enumerate(tasks):
        defined = held_out.masks[:, column]
        label, score = held_out.labels[defined, column], scores[defined, column]
        if task.kind == "binary":
            metrics[task.name] = {
                "auc": auc(label, score),
                "gauc": gauc(label, score, held_out.groups[defined]),
            }
        else:
            error = (label - score).astype(np.float64)
            metrics[task.name] = {"rmse": float(np.sqrt(np.mean(error**2))) if len(error) else None}
    return metrics


def predict(model: MultiTaskModel, data: EncodedSet) -> npt.NDArray[np.float32]:
    """Task scores of all rows: float32 [N, T]."""
    model.eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(data), _ROWS_AT_ONCE):
            batch = data.batch(slice(start, start + _ROWS_AT_ONCE))
            items = model.item_stage(batch.item_ids, batch.item_numbers)
            users = model.user_stage(batch.user_ids, batch.user_numbers)
            scores = model.joint_stage(users, items.index_select(0, batch.item_row), batch.user_row)
            parts.append(scores.numpy())
    return np.concatenate(parts)


def auc(labels: npt.NDArray[np.float32], scores: npt.NDArray[np.float32]) -> float | None:
    """AUC of [N] rows with labels 0 or 1; None when they are all of one class."""
    return gauc(labels, scores, np.zeros(len(labels), np.int64))


def gauc(
    labels: npt.NDArray[np.float32],
    scores: npt.NDArray[np.float32],
    groups: npt.NDArray[np.int64],
) -> float | None:
    """Row-weighted mean of the AUC of each group, all [N]; None when no group has both classes.

    The AUC of a group is its Mann-Whitney statistic: with ranks r counted within the group,
    (sum of r over positives - P (P + 1) / 2) / (P * negatives).
    """
    if not len(labels):
        return None
    order = np.lexsort((scores, groups))
    group, score, positive = groups[order], scores[order], labels[order] > 0
    new_group = np.r_[True, group[1:] != group[:-1]]
    new_value = new_group | np.r_[True, score[1:] != score[:-1]]
    starts = np.flatnonzero(new_value)
    ends = np.r_[starts[1:], len(score)]
    number = np.cumsum(new_group) - 1
    first_row = np.flatnonzero(new_group)
    tie = np.cumsum(new_value) - 1
    rank = (starts[tie] + ends[tie] + 1) / 2 - first_row[number]  # ties share their mean rank

    rows = np.bincount(number)
    positives = np.bincount(number, weights=positive)
    rank_sum = np.bincount(number, weights=rank * positive)
    both = (positives > 0) & (positives < rows)
    if not both.any():
        return None
    rows, positives, rank_sum = rows[both], positives[both], rank_sum[both]
    aucs = (rank_sum - positives * (positives + 1) / 2) / (positives * (rows - positives))
    return float(np.average(aucs, weights=rows))
