"""The graph from elsewhere, fed in numpy: what the bundle's single stage must give.

Written apart from `wrap.py`, which puts the same steps into the graph: a mistake in one is a
difference to the other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnxruntime

from bundle.encoding import Encoded
from bundle.manifest import Parity
from bundle.schema import FIRST_VALUE_INDEX, OUT_OF_VOCABULARY_INDEX, PADDING_INDEX
from bundle.stages import SingleStage
from model_export.errors import ParityFailed, SpecInvalid
from model_export.foreign.examples import ExampleRows
from model_export.foreign.signature import Signature, Value, blocks
from model_export.foreign.spec import Indices
from model_export.foreign.specification import Specification

LIMIT = 1e-5
GIVEN_LIMIT = 1e-4
ROWS = (1, 2, 257)
USERS = (1, 3, 5)
_ROWS_APART = 32
Scores = npt.NDArray[np.float32]
Array = npt.NDArray[Any]


class ForeignGraph:
    """A session of the graph as it came.

    Raises:
        SpecInvalid: onnxruntime cannot open it.
    """

    def __init__(self, file: Path, signature: Signature, specification: Specification) -> None:
        self._session = _session(file, specification)
        self._signature = signature
        self._specification = specification

    def scores(self, users: Encoded, items: Encoded, user_row: npt.NDArray[np.int64]) -> Scores:
        """Users [U], items [N], user_row [N] -> task scores float32 [N, T].

        Raises:
            SpecInvalid: the graph fails, or gives another number of rows.
        """
        spec = self._specification.spec
        sides = {"user": users.take(user_row), "item": items}
        feeds = {name: self._input(value, sides) for name, value in self._signature.inputs.items()}
        names = list(self._signature.outputs)
        try:
            outputs = dict(zip(names, self._session.run(names, feeds), strict=True))
        except Exception as error:  # onnxruntime's own exceptions share no base class
            failure = f"the graph fails on the examples: {error}"
            raise self._specification.error("inputs", failure) from error
        columns = []
        for task in spec.tasks:
            output = self._signature.output_of(self._specification, task)
            values = np.asarray(outputs[output.name], np.float32)
            if values.shape[:1] != user_row.shape:
                raise self._specification.error(
                    f"tasks.{task.name}.output",
                    f"output {output.name} is {list(values.shape)} for {len(user_row)} candidates; "
                    "it needs a row for each",
                )
            values = values.reshape(len(user_row), -1)
            if (column := task.column or 0) >= values.shape[1]:
                raise self._specification.error(
                    f"tasks.{task.name}.column",
                    f"output {output.name} has {values.shape[1]} columns for each candidate",
                )
            score = values[:, column]
            if task.activation == "sigmoid":
                score = (1 / (1 + np.exp(-score.astype(np.float64)))).astype(np.float32)
            columns.append(score)
        return np.stack(columns, axis=1)

    def _input(self, value: Value, sides: dict[str, Encoded]) -> Array:
        parts = []
        for block in blocks(self._specification, value.name):
            encoded = sides[block.side]
            matrix: Array = encoded.ids if block.matrix == "ids" else encoded.numbers
            part = matrix[:, block.columns]
            if block.matrix == "ids":
                part = _reindexed(part, self._specification.indices[block.features[0]])
            parts.append(part.astype(value.type))
        whole = np.concatenate(parts, axis=1)
        return whole[:, 0] if value.shape is not None and len(value.shape) == 1 else whole


def check(
    directory: Path,
    stages: SingleStage,
    foreign: ForeignGraph,
    specification: Specification,
    rows: ExampleRows,
    whose: Literal["given", "imported_graph"],
) -> Parity:
    """Compare the bundle's stage with the graph as it came, over batches of several sizes.

    Args:
        whose: the golden rows' scores are.

    Raises:
        ParityFailed: a difference above `LIMIT`, or a score that is not finite.
    """
    session = _session(directory / stages.single.file, specification)
    worst = 0.0
    for row_count in ROWS:
        for user_count in USERS:
            users, items = rows.encoded(user_count, row_count)
            user_row = np.arange(row_count, dtype=np.int64) % user_count
            available = {
                "user_ids": users.ids,
                "user_numbers": users.numbers,
                "item_ids": items.ids,
                "item_numbers": items.numbers,
                "user_row": user_row,
            }
            feeds = {name: available[name] for name in stages.single.inputs}
            (found,) = session.run(None, feeds)
            expected = foreign.scores(users, items, user_row)
            difference = float(differences(expected, found).max())
            if not difference <= LIMIT:  # NaN fails too
                raise ParityFailed(
                    f"scores differ by {difference:.2e} from the graph's own at {row_count} rows "
                    f"of {user_count} users; at most {LIMIT:.0e} is allowed"
                )
            worst = max(worst, difference)
    return Parity(reference=whose, max_abs_difference=worst, rows=ROWS, users=USERS)


def check_rows_apart(
    graph: ForeignGraph, specification: Specification, rows: ExampleRows, together: Scores
) -> None:
    """See to it that a row's scores are its own: rows of several requests are scored together.

    Args:
        together: the scores of all rows in one run.

    Raises:
        ParityFailed: a row alone has other scores.
    """
    for row in range(min(len(rows), _ROWS_APART)):
        users = rows.encoder.user(rows.users[row : row + 1], rows.contexts[row : row + 1])
        items = rows.encoder.item(rows.items[row : row + 1])
        alone = graph.scores(users, items, np.zeros(1, np.int64))
        task = int(differences(together[row], alone[0]).argmax())
        if not differences(together[row], alone[0])[task] <= GIVEN_LIMIT:
            name = specification.spec.tasks[task].name
            raise ParityFailed(
                f"examples[{row}]: {name} is {alone[0, task]:.6g} where the row is scored alone, "
                f"{together[row, task]:.6g} beside the others; requests are scored together, so a "
                "score must depend on its own row only, and not on chance"
            )


def differences(expected: Scores, found: Scores) -> npt.NDArray[np.float64]:
    """|found - expected|, relative where a score is above 1."""
    wide = expected.astype(np.float64)
    apart: npt.NDArray[np.float64] = np.abs(found - wide) / np.maximum(np.abs(wide), 1.0)
    return apart


def _reindexed(ids: Array, indices: Indices) -> Array:
    special = {PADDING_INDEX: indices.padding, OUT_OF_VOCABULARY_INDEX: indices.unknown}
    found: Array = ids.astype(np.int64) - FIRST_VALUE_INDEX + indices.first
    for ours, theirs in special.items():
        found[ids == ours] = theirs
    return found


def _session(path: Path, specification: Specification) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions share no base class
        raise SpecInvalid(f"{path}: onnxruntime refuses it: {error}") from error
