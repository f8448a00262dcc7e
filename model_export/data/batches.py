"""Training batches: rows in random order, those of an impression together, negatives sampled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from model_export.data.encoded import Batch, EncodedSet
from model_export.data.tasks import TaskDeclaration


class EncodedRows(Protocol):
    """One part of a data set, encoded: in memory, or read anew each time."""

    def __len__(self) -> int:
        """Number of candidate rows."""
        ...

    def chunks(self, rng: np.random.Generator | None = None) -> Iterator[EncodedSet]:
        """All rows, in chunks; the chunks in random order if there is a generator."""
        ...


class Share(Protocol):
    """Takes this process's part of a batch's rows."""

    def __call__(self, rows: npt.NDArray[np.int64], /) -> npt.NDArray[np.int64]: ...


@dataclass(frozen=True)
class TrainingBatch:
    """A process's part of a batch.

    Attributes:
        batch: its rows.
        defined: float32 [T], the defined rows of each task in the whole batch.
        done: the share of the epoch that lies behind when this batch does, in (0, 1].
    """

    batch: Batch
    defined: npt.NDArray[np.float32]
    done: float


def training_batches(
    rows: EncodedRows,
    tasks: Sequence[TaskDeclaration],
    batch_rows: int,
    rng: np.random.Generator,
    share: Share,
) -> Iterator[TrainingBatch]:
    """One epoch of batches.

    Args:
        rows: the training part.
        tasks: the T tasks, for the sampling of their negatives; a row left without a task is
            left out.
        batch_rows: of a whole batch.
        rng: of the order and the sampling; the same in all processes.
        share: takes this process's part.
    """
    seen = 0
    for chunk in rows.chunks(rng):
        masks = _sampled(chunk, tasks, rng)
        order = _order(chunk, rng)
        order = order[masks[order].any(axis=1)]
        sampled = replace(chunk, masks=masks)
        for start in range(0, len(order), batch_rows):
            of_batch = order[start : start + batch_rows]
            done = seen + len(chunk) * (start + len(of_batch)) / len(order)
            yield TrainingBatch(
                batch=sampled.batch(share(of_batch)),
                defined=masks[of_batch].sum(axis=0).astype(np.float32),
                done=done / len(rows),
            )
        seen += len(chunk)


def _order(chunk: EncodedSet, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Impressions in random order, their rows together, so that a user stage runs once."""
    rank = rng.permutation(len(chunk.users))
    return np.argsort(rank[chunk.user_row], kind="stable")


def _sampled(
    chunk: EncodedSet, tasks: Sequence[TaskDeclaration], rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """The masks, without the negatives that are not kept: bool [N, T]."""
    masks = chunk.masks
    for column, task in enumerate(tasks):
        if task.negatives is not None and task.negatives.by == "sampling":
            if masks is chunk.masks:
                masks = masks.copy()
            kept = rng.random(len(chunk)) < task.negatives.keep
            masks[:, column] &= kept | (chunk.labels[:, column] > 0.5)
    return masks
