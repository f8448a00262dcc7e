"""The labels of the training part: whether there is something to learn, and what sets scales."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from model_export.data.batches import EncodedRows
from model_export.data.tasks import TaskDeclaration
from model_export.errors import DataInvalid


def scaling_labels(
    tasks: Sequence[TaskDeclaration], rows: EncodedRows, where: str
) -> list[npt.NDArray[np.float32]]:
    """Check, in one pass, that every task has something to learn.

    Args:
        tasks: the T tasks.
        rows: the training part.
        where: the name of the data.

    Returns:
        T arrays float32, the labels of a regression task where it is defined; those of a binary
        task, which set no scale, are not kept.

    Raises:
        DataInvalid: a task is defined nowhere, or a binary one has labels of one class only.
    """
    positives, defined = np.zeros((2, len(tasks)), np.int64)
    kept: list[list[npt.NDArray[np.float32]]] = [[] for _ in tasks]
    for chunk in rows.chunks():
        defined += chunk.masks.sum(axis=0)
        positives += ((chunk.labels != 0) & chunk.masks).sum(axis=0)
        for column, task in enumerate(tasks):
            if task.kind == "regression":
                kept[column].append(chunk.labels[chunk.masks[:, column], column])
    check_learnable(tasks, positives.tolist(), defined.tolist(), where)
    return [np.concatenate(parts) if parts else np.zeros(0, np.float32) for parts in kept]


def check_learnable(
    tasks: Sequence[TaskDeclaration], positives: Sequence[int], defined: Sequence[int], where: str
) -> None:
    """That every task has something to learn in the training part.

    Args:
        tasks: the T tasks.
        positives, defined: [T], rows with a label other than 0, and rows with a label.
        where: the name of the data.

    Raises:
        DataInvalid: a task is defined nowhere, or a binary one has labels of one class only.
    """
    for task, positive, total in zip(tasks, positives, defined, strict=True):
        column = task.label or task.name
        if not total:
            raise DataInvalid(
                f"{where}: tasks: {task.name}: no training row has a label in {column!r}"
            )
        if task.kind == "binary" and positive in (0, total):
            raise DataInvalid(
                f"{where}: tasks: {task.name}: all {total} training labels in {column!r} are "
                f"{int(positive > 0)}: there is nothing to learn"
            )
