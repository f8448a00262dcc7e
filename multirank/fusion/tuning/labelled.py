"""Labelled rankings: what was scored beside what came of it, as rows that belong to lists.

A Parquet file has a row for each candidate, as a run directory's `validation.parquet` has:

    list             the request or impression that the row belongs to
    group            the person, for metrics taken per person; the list, where there is none
    score.<task>     the task's score
    label.<task>     what came of it; null where the task is not defined
    item.<feature>   features that the formula uses; user.* and context.* too
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from multirank.fusion.errors import FusionCommandError
from service.fusion.compile import CompiledFusion

Array = npt.NDArray[Any]
_SCORE, _LABEL = "score.", "label."
_ENTITIES = ("item.", "user.", "context.")


@dataclass(frozen=True)
class Labelled:
    """Rows of rankings, those of one list together.

    Attributes:
        source: what to call them.
        tasks: names of the T tasks.
        lists, groups: int64 [N].
        scores: float32 [N, T].
        labels: task -> float32 [N], NaN where it is not defined; of some tasks at least.
        features: name -> float64 [N].
    """

    source: str
    tasks: tuple[str, ...]
    lists: Array
    groups: Array
    scores: Array
    labels: Mapping[str, Array]
    features: Mapping[str, Array]

    def __len__(self) -> int:
        return len(self.lists)

    def take(self, rows: Array, source: str) -> Labelled:
        """The selected rows."""
        return Labelled(
            source,
            self.tasks,
            self.lists[rows],
            self.groups[rows],
            self.scores[rows],
            {task: label[rows] for task, label in self.labels.items()},
            {name: values[rows] for name, values in self.features.items()},
        )

    def split(self, share: float, seed: int) -> tuple[Labelled, Labelled]:
        """Two parts of whole groups (people): a share of about `share`, and the rest."""
        groups, of_row = np.unique(self.groups, return_inverse=True)
        held = np.random.default_rng(seed).permutation(len(groups)) < round(len(groups) * share)
        rows = held[of_row]
        if rows.all() or not rows.any():
            raise FusionCommandError(f"{self.source}: too few groups to hold some of them out")
        return (
            self.take(~rows, f"{self.source} ({1 - share:.0%} of the groups)"),
            self.take(rows, f"{self.source} (the other {share:.0%})"),
        )

    def fuse(self, compiled: CompiledFusion, weights: Mapping[str, float]) -> Array:
        """Fused scores float64 [N], list by list where the formula looks at a whole request."""
        of_request = [n for n in compiled.features_used if not n.startswith("item.")]
        if not compiled.program.across and not of_request:
            return compiled.evaluate(self.scores, weights, self.features)
        fused = np.empty(len(self))
        starts = np.flatnonzero(np.r_[True, self.lists[1:] != self.lists[:-1]])
        for start, end in zip(starts, [*starts[1:], len(self)], strict=True):
            features = {
                name: self.features[name][start] if name in of_request else values[start:end]
                for name, values in self.features.items()
                if name in compiled.features_used
            }
            fused[start:end] = compiled.evaluate(self.scores[start:end], weights, features)
        return fused


def read_labelled(file: Path) -> Labelled:
    """Read a Parquet file.

    Raises:
        FusionCommandError: it cannot be read, or lacks columns; says which.
    """
    try:
        return of_table(pq.read_table(file), str(file))
    except (OSError, pa.ArrowException) as error:
        raise FusionCommandError(f"{file}: {error}") from error


def read_decisions(directory: Path, labels: Path) -> Labelled:
    """Read a decision log, and what became of its items.

    Args:
        directory: of the log's closed files.
        labels: Parquet, `request_id`, `item_id` and `label.<task>`; items that it does not have
            are labelled as null.

    Raises:
        FusionCommandError: a file cannot be read, or lacks columns; says which.
    """
    files = sorted(directory.glob("*.parquet"))
    if not files:
        raise FusionCommandError(f"{directory}: no closed file of a decision log")
    try:
        decisions = pa.concat_tables([_rows_of(pq.read_table(file)) for file in files])
        outcomes = pq.read_table(labels)
        keys = ["request_id", "item_id"]
        outcomes = outcomes.set_column(
            outcomes.column_names.index("item_id"),
            "item_id",
            outcomes.column("item_id").cast(pa.string()),
        )
        joined = decisions.join(outcomes, keys, join_type="left outer").sort_by("place")
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise FusionCommandError(f"{directory}, {labels}: {error}") from error
    return of_table(joined, f"{directory} with {labels}")


def _rows_of(decisions: pa.Table) -> pa.Table:
    """A file of decisions, a row for each item instead of for each request."""
    items = decisions.column("item_ids").combine_chunks()
    request = pc.list_parent_indices(items)
    columns = {
        "request_id": decisions.column("request_id").combine_chunks().take(request),
        "item_id": pc.list_flatten(items),
        "place": pa.array(np.arange(len(request))),
    }
    users = decisions.column("user_id").combine_chunks().take(request)
    columns["group"] = pc.coalesce(users, columns["request_id"])
    columns["list"] = columns["request_id"]
    for name in decisions.column_names:
        if name.startswith(_SCORE):
            columns[name] = pc.list_flatten(decisions.column(name).combine_chunks())
    return pa.table(columns)


def of_table(table: pa.Table, source: str) -> Labelled:
    """The rows of a table with the columns above.

    Raises:
        FusionCommandError: columns are missing.
    """
    names = table.column_names
    tasks = tuple(n.removeprefix(_SCORE) for n in names if n.startswith(_SCORE))
    labelled = [n.removeprefix(_LABEL) for n in names if n.startswith(_LABEL)]
    if "list" not in names or not tasks or not labelled:
        raise FusionCommandError(
            f"{source}: needs the columns list, score.<task> and label.<task>; it has "
            f"{', '.join(names)}"
        )
    lists = _numbered(table.column("list"))
    groups = _numbered(table.column("group")) if "group" in names else lists
    order = np.argsort(lists, kind="stable")
    scores = [_floats(table, _SCORE + task) for task in tasks]
    return Labelled(
        source,
        tasks,
        lists,
        groups,
        np.stack(scores, axis=1),
        {task: _floats(table, _LABEL + task) for task in labelled},
        {n: _floats(table, n).astype(np.float64) for n in names if n.startswith(_ENTITIES)},
    ).take(order, source)


def calibrated(labelled: Labelled, curves: Mapping[str, Any]) -> Labelled:
    """The rows with the scores of some tasks calibrated, as they are served.

    Args:
        curves: task -> from scores float32 [N] to probabilities.
    """
    columns: Sequence[Array] = [
        curves[task](column).astype(np.float32) if task in curves else column
        for task, column in zip(labelled.tasks, labelled.scores.T, strict=True)
    ]
    return Labelled(**{**vars(labelled), "scores": np.stack(columns, axis=1)})


def _floats(table: pa.Table, name: str) -> Array:
    values: Array = table.column(name).to_numpy(zero_copy_only=False).astype(np.float32)
    return values


def _numbered(column: pa.ChunkedArray) -> Array:
    """Equal values get equal numbers, in order of appearance."""
    encoded = column.combine_chunks().dictionary_encode()
    numbers: Array = encoded.indices.to_numpy().astype(np.int64)
    return numbers
