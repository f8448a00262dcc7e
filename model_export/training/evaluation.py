"""Held-out metrics of all tasks of a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from bundle.manifest import Task
from model_export.data.batches import EncodedRows
from model_export.data.encoded import Batch, EncodedSet
from model_export.models.base import MultiTaskModel
from model_export.training.metrics import auc, calibration_error, gauc, log_loss, ndcg

Metrics = dict[str, dict[str, float | None]]
"""Task -> metric -> value; None where the rows do not define it."""

NDCG_ROWS = 10
_ROWS_AT_ONCE = 16384


@dataclass(frozen=True)
class Predictions:
    """Scores of all tasks beside what happened.

    Attributes:
        scores, labels: float32 [N, T]. masks: bool [N, T].
        groups: int64 [N], the person. lists: int64 [N], the impression.
    """

    scores: npt.NDArray[np.float32]
    labels: npt.NDArray[np.float32]
    masks: npt.NDArray[np.bool_]
    groups: npt.NDArray[np.int64]
    lists: npt.NDArray[np.int64]


def evaluate(model: MultiTaskModel, tasks: Sequence[Task], held_out: EncodedRows) -> Metrics:
    """The metrics of a network on a part of the data."""
    return metrics_of(tasks, predict(model, held_out))


def metrics_of(tasks: Sequence[Task], found: Predictions) -> Metrics:
    """AUC, GAUC, log loss and calibration error of binary tasks, RMSE and MAE of regression tasks,
    and NDCG@10 within each impression of both.
    """
    metrics: Metrics = {}
    for column, task in enumerate(tasks):
        defined = found.masks[:, column]
        label, score = found.labels[defined, column], found.scores[defined, column]
        ranking = {f"ndcg@{NDCG_ROWS}": ndcg(label, score, found.lists[defined], NDCG_ROWS)}
        if task.kind == "binary":
            metrics[task.name] = {
                "auc": auc(label, score),
                "gauc": gauc(label, score, found.groups[defined]),
                "log_loss": log_loss(label, score),
                "ece": calibration_error(label, score),
                **ranking,
            }
        else:
            error = (label - score).astype(np.float64)
            some = len(error) > 0
            metrics[task.name] = {
                "rmse": float(np.sqrt(np.mean(error**2))) if some else None,
                "mae": float(np.abs(error).mean()) if some else None,
                **ranking,
            }
    return metrics


def predict(model: MultiTaskModel, data: EncodedRows) -> Predictions:
    """Scores of all tasks, the auxiliary ones too, for all rows."""
    model.eval()
    parts: list[Predictions] = []
    impressions = 0
    with torch.inference_mode():
        for chunk in data.chunks():
            scores = [
                _scores(model, chunk.batch(slice(start, start + _ROWS_AT_ONCE)))
                for start in range(0, len(chunk), _ROWS_AT_ONCE)
            ]
            parts.append(_beside(chunk, np.concatenate(scores), impressions))
            impressions += len(chunk.users)
    if len(parts) == 1:
        return parts[0]
    names = vars(parts[0])
    return Predictions(**{n: np.concatenate([getattr(p, n) for p in parts]) for n in names})


def _scores(model: MultiTaskModel, batch: Batch) -> npt.NDArray[np.float32]:
    batch = batch.to(next(model.parameters()).device)
    items = model.item_stage(batch.item_ids, batch.item_numbers)
    users = model.user_stage(batch.user_ids, batch.user_numbers)
    logits = model.joint_logits(users, items.index_select(0, batch.item_row), batch.user_row)
    scores: npt.NDArray[np.float32] = model.outputs.of_all(logits).cpu().numpy()
    return scores


def _beside(chunk: EncodedSet, scores: npt.NDArray[np.float32], impressions: int) -> Predictions:
    lists = chunk.user_row + impressions
    return Predictions(scores, chunk.labels, chunk.masks, chunk.groups, lists)
