"""Tasks: from observed outcomes to labels and masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from bundle.manifest import Task
from bundle.schema import Finite, Name
from model_export.data.impressions import Impressions
from model_export.errors import DataInvalid
from model_export.losses import DEFAULTS, AnyLoss, TaskLoss
from model_export.models.outputs import Output


class Negatives(BaseModel):
    """Fewer negatives in training; the served probability is corrected for it.

    Attributes:
        keep: share w of the negative rows that is kept, or the weight that each one gets.
        by: `sampling` draws the kept rows anew in each epoch, `weighting` keeps all of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    keep: Annotated[float, Field(gt=0, le=1)]
    by: Literal["sampling", "weighting"] = "sampling"


class TaskDeclaration(BaseModel):
    """A task, and where its label comes from.

    Attributes:
        label: the outcome column; the task's own name when left out.
        at_least: for a binary task, the outcome from which on the label is 1.
        where: the task is defined only where this outcome column is 1; where it is 0 or missing
            the task is masked, neither a negative nor a zero.
        entire_space: with `where`, rows elsewhere count as label 0 instead: a conversion over all
            impressions rather than over the clicked ones.
        minimum, maximum: the range of a regression task's labels; one outside it is an error.
        loss: cross-entropy for a binary task and squared error for regression when left out.
        loss_weight: static weight of the task's loss, before the weighting method's own.
        negatives: of a binary task with cross-entropy: train on fewer of them.
        calibration: of a binary task's probability, fitted at export on the validation part.
        serve: whether the task is in the answer; an auxiliary task only helps to train the others.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    kind: Literal["binary", "regression"]
    description: str = ""
    label: str | None = None
    at_least: Finite | None = None
    where: str | None = None
    entire_space: bool = False
    minimum: Finite | None = None
    maximum: Finite | None = None
    loss: AnyLoss | None = None
    loss_weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    negatives: Negatives | None = None
    calibration: Literal["none", "platt", "isotonic"] = "none"
    serve: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.at_least is not None and self.kind != "binary":
            raise ValueError("at_least: only a binary task has a threshold")
        if self.kind == "binary" and (self.minimum is not None or self.maximum is not None):
            raise ValueError("minimum, maximum: the labels of a binary task are 0 and 1")
        if self.training_loss.kind != self.kind:
            raise ValueError(f"loss: {self.loss} is for {self.training_loss.kind} tasks")
        if self.negatives is not None and self.training_loss != DEFAULTS["binary"]:
            raise ValueError("negatives: can be corrected for only with binary_cross_entropy")
        if self.calibration != "none" and (self.kind != "binary" or not self.serve):
            raise ValueError("calibration: is for binary tasks that are served")
        if self.entire_space and self.where is None:
            raise ValueError("entire_space: says what is elsewhere, and needs where")
        return self

    @property
    def training_loss(self) -> TaskLoss:
        """The loss, or the default of the task's kind."""
        return self.loss or DEFAULTS[self.kind]

    def served(self) -> Task:
        """The task as the manifest names it."""
        return Task(name=self.name, kind=self.kind, description=self.description)

    def output(self) -> Output:
        """How the task's logit becomes a score."""
        shift = math.log(self.negatives.keep) if self.negatives else 0.0
        return Output(self.training_loss, logit_shift=shift, served=self.serve)


def labels_and_masks(
    tasks: Sequence[TaskDeclaration], part: Impressions
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """The label of every row and task, and where it is defined.

    Returns:
        labels float32 [N, T], 0 where undefined; masks bool [N, T].

    Raises:
        DataInvalid: a column is absent; a defined label is NaN or outside its range. Names the
            column and the row.
    """
    labels, masks = zip(*(_label_and_mask(task, part) for task in tasks), strict=True)
    return np.stack(labels, axis=1), np.stack(masks, axis=1)


def _label_and_mask(
    task: TaskDeclaration, part: Impressions
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    column, outcomes = task.label or task.name, part.outcomes
    for needed in (column, task.where):
        if needed is not None and needed not in outcomes:
            known = ", ".join(outcomes)
            raise DataInvalid(f"tasks: {task.name}: no outcome {needed!r}; the data has {known}")
    values = outcomes[column]
    mask = np.ones(len(values), bool)
    if task.where is not None:
        condition = outcomes[task.where]
        unclear = np.flatnonzero((condition != 0) & (condition != 1) & ~np.isnan(condition))
        if len(unclear):
            row = int(unclear[0])
            raise DataInvalid(
                f"{part.where(row)}: tasks: {task.name}: where: {task.where!r} is "
                f"{condition[row]}, neither 0 nor 1"
            )
        mask = condition == 1
    if task.at_least is not None:
        wrong = ~np.isfinite(values)
        label = (values >= task.at_least).astype(np.float32)
    else:
        wrong = task.training_loss.wrong(values)
        for bound, beyond in ((task.minimum, np.less), (task.maximum, np.greater)):
            if bound is not None:
                wrong |= beyond(values, bound)
        label = values
    if len(rows := np.flatnonzero(wrong & mask)):
        row = int(rows[0])
        raise DataInvalid(
            f"{part.where(row)}: tasks: {task.name}: outcome {column!r} is {values[row]}, "
            f"which is no label of {_range(task)}"
        )
    label = np.where(mask, label, np.float32(0))
    return label, np.ones_like(mask) if task.entire_space else mask


def _range(task: TaskDeclaration) -> str:
    if task.kind == "binary":
        return "a binary task: 0 or 1"
    low, high = ("" if bound is None else f"{bound:g}" for bound in (task.minimum, task.maximum))
    return f"a regression task: a number{f' in [{low}, {high}]' if low or high else ''}"
