"""Parity: the exported graphs, run by onnxruntime, must give the scores that torch gives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch

from bundle.encoding import Encoded, Encoder
from bundle.manifest import Parity, Stage, Stages
from model_export.errors import ParityFailed
from model_export.models.base import MultiTaskModel
from model_export.training.run_directory import Examples

LIMIT = 1e-5
ROWS = (1, 2, 257)
USERS = (1, 2, 5)

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Graphs:
    """Sessions of the three stages of a bundle directory."""

    stages: Stages
    user: onnxruntime.InferenceSession
    item: onnxruntime.InferenceSession
    joint: onnxruntime.InferenceSession

    @classmethod
    def open(cls, directory: Path, stages: Stages) -> Graphs:
        """Build the sessions."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        sessions = {
            name: onnxruntime.InferenceSession(
                str(directory / stage.file), options, providers=["CPUExecutionProvider"]
            )
            for name, stage in stages
        }
        return cls(stages=stages, **sessions)

    def scores(self, users: Encoded, items: Encoded, user_row: npt.NDArray[np.int64]) -> Scores:
        """Users [U], items [N], user_row int64 [N] -> task scores float32 [N, S]."""
        (user_tensor,) = self.user.run(None, _feeds(self.stages.user, users))
        (item_tensor,) = self.item.run(None, _feeds(self.stages.item, items))
        joint = {"user_tensor": user_tensor, "item_tensor": item_tensor, "user_row": user_row}
        (scores,) = self.joint.run(None, joint)
        result: Scores = scores
        return result


def torch_scores(
    model: MultiTaskModel, users: Encoded, items: Encoded, user_row: npt.NDArray[np.int64]
) -> Scores:
    """The same scores by torch."""
    with torch.inference_mode():
        user_tensor = model.user_stage(torch.from_numpy(users.ids), torch.from_numpy(users.numbers))
        item_tensor = model.item_stage(torch.from_numpy(items.ids), torch.from_numpy(items.numbers))
        scores = model.joint_stage(user_tensor, item_tensor, torch.from_numpy(user_row))
    result: Scores = scores.numpy()
    return result


def check(model: MultiTaskModel, graphs: Graphs, encoder: Encoder, examples: Examples) -> Parity:
    """Compare both over batches of several sizes, from packed raw rows.

    The difference of a probability is absolute. That of a regression score is relative to the
    score, or to the deviation of its label where the score is smaller than that.

    Raises:
        ParityFailed: a difference above `LIMIT`, or a score that is not finite.
    """
    worst = 0.0
    for row_count in ROWS:
        for user_count in USERS:
            # An example part smaller than the batch is gone through several times.
            user_rows = np.arange(user_count) % len(examples.users)
            users = encoder.user(examples.users[user_rows], examples.contexts[user_rows])
            items = encoder.item(examples.items[np.arange(row_count) % len(examples.items)])
            user_row = np.arange(row_count, dtype=np.int64) % user_count
            expected = torch_scores(model, users, items, user_row)
            difference = differences(model, expected, graphs.scores(users, items, user_row))
            found = float(difference.max())
            if not found <= LIMIT:  # NaN fails too
                raise ParityFailed(
                    f"scores differ by {found:.2e} at {row_count} rows of {user_count} users; "
                    f"at most {LIMIT:.0e} is allowed"
                )
            worst = max(worst, found)
    return Parity(max_abs_difference=worst, rows=ROWS, users=USERS)


def differences(model: MultiTaskModel, expected: Scores, found: Scores) -> npt.NDArray[Any]:
    """How far `found` is from `expected`, as `check` measures it: float64 [N, S]."""
    wide = expected.astype(np.float64)
    unit = np.maximum(np.abs(wide), model.outputs.units())
    return np.abs(found - wide) / np.where(model.outputs.are_probabilities(), 1.0, unit)


def _feeds(stage: Stage, encoded: Encoded) -> dict[str, npt.NDArray[Any]]:
    available = {"ids": encoded.ids, "numbers": encoded.numbers}
    return {name: available[name] for name in stage.inputs}
