"""Tasks: from observed outcomes to labels and masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from bundle.manifest import Task
from bundle.schema import Finite, Name
from model_export.errors import DataInvalid


class TaskDeclaration(BaseModel):
    """A task, and where its label comes from.

    Attributes:
        label: the outcome column; the task's own name when left out.
        at_least: for a binary task, the outcome from which on the label is 1.
        where: the task is defined only where this outcome column is 1; elsewhere it is masked,
            neither a negative nor a zero.
        entire_space: with `where`, rows elsewhere count as label 0 instead: a conversion over all
            impressions rather than over the clicked ones.
        loss_weight: static weight of the task's loss in the sum.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    kind: Literal["binary", "regression"]
    description: str = ""
    label: str | None = None
    at_least: Finite | None = None
    where: str | None = None
    entire_space: bool = False
    loss_weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.at_least is not None and self.kind != "binary":
            raise ValueError("at_least: only a binary task has a threshold")
        if self.entire_space and self.where is None:
            raise ValueError("entire_space: says what is elsewhere, and needs where")
        return self

    def served(self) -> Task:
        """The task as the manifest names it."""
        return Task(name=self.name, kind=self.kind, description=self.description)


def labels_and_masks(
    tasks: Sequence[TaskDeclaration], outcomes: Mapping[str, npt.NDArray[np.float32]]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """The label of every row and task, and where it is defined.

    Args:
        tasks: the T tasks.
        outcomes: float32 [N] for each observed behaviour.

    Returns:
        labels float32 [N, T], 0 where undefined; masks bool [N, T].

    Raises:
        DataInvalid: a column is absent; a defined label is NaN, or not 0 or 1 in a binary task.
    """
    labels, masks = zip(*(_label_and_mask(task, outcomes) for task in tasks), strict=True)
    return np.stack(labels, axis=1), np.stack(masks, axis=1)


def _label_and_mask(
    task: TaskDeclaration, outcomes: Mapping[str, npt.NDArray[np.float32]]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    column = task.label or task.name
    for needed in (column, task.where):
        if needed is not None and needed not in outcomes:
            known = ", ".join(outcomes)
            raise DataInvalid(f"tasks: {task.name}: no outcome {needed!r}; the data has {known}")
    values = outcomes[column]
    mask = np.ones(len(values), bool) if task.where is None else outcomes[task.where] == 1
    wrong = ~np.isfinite(values)
    if task.at_least is not None:
        label = (values >= task.at_least).astype(np.float32)
    else:
        label = values
        if task.kind == "binary":
            wrong |= (values != 0) & (values != 1)
    if len(rows := np.flatnonzero(wrong & mask)):
        row = rows[0]
        raise DataInvalid(
            f"tasks: {task.name}: outcome {column!r} is {values[row]} in row {row}, "
            f"which is no label of a {task.kind} task"
        )
    label = np.where(mask, label, np.float32(0))
    return label, np.ones_like(mask) if task.entire_space else mask
