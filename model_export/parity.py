"""Parity: the exported graphs, run by onnxruntime, must give the scores that torch gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch

from bundle.encoding import Encoded, Encoder, Side
from bundle.manifest import Parity
from bundle.stages import SingleStage, Stage, Stages
from model_export.errors import ParityFailed
from model_export.models.base import MultiTaskModel
from model_export.stages import Network, OneStage
from model_export.training.run_directory import Examples

LIMIT = 1e-5
ROWS = (1, 2, 257)
USERS = (1, 2, 5)

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Graphs:
    """Sessions of the stages of a bundle directory, by name."""

    stages: Stages | SingleStage
    sessions: Mapping[str, onnxruntime.InferenceSession]

    @classmethod
    def open(cls, directory: Path, stages: Stages | SingleStage) -> Graphs:
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
        return cls(stages, sessions)

    def scores(self, users: Encoded, items: Encoded, user_row: npt.NDArray[np.int64]) -> Scores:
        """Users [U], items [N], user_row int64 [N] -> task scores float32 [N, S]."""
        if isinstance(self.stages, SingleStage):
            single: dict[str, npt.NDArray[Any]] = {"user_row": user_row}
            single |= {f"user_{name}": values for name, values in vars(users).items()}
            single |= {f"item_{name}": values for name, values in vars(items).items()}
            return self._run("single", self.stages.single, single)
        return self.joint(self.side("user", users), self.side("item", items), user_row)

    def side(self, side: Side, rows: Encoded) -> npt.NDArray[np.float32]:
        """The tensors [U, P] of users, or [I, P'] of items; of three stages only."""
        assert isinstance(self.stages, Stages)
        return self._run(side, self.stages.user if side == "user" else self.stages.item, vars(rows))

    def joint(
        self,
        user_tensor: npt.NDArray[np.float32],
        item_tensor: npt.NDArray[np.float32],
        user_row: npt.NDArray[np.int64],
    ) -> Scores:
        """user_tensor [U, P], item_tensor [N, P'] -> task scores [N, S]; of three stages only."""
        assert isinstance(self.stages, Stages)
        tensors: dict[str, npt.NDArray[Any]] = {
            "user_tensor": user_tensor,
            "item_tensor": item_tensor,
            "user_row": user_row,
        }
        return self._run("joint", self.stages.joint, tensors)

    def _run(self, name: str, stage: Stage, available: Mapping[str, npt.NDArray[Any]]) -> Scores:
        feeds = {each: available[each] for each in stage.inputs}
        (output,) = self.sessions[name].run(None, feeds)
        result: Scores = output
        return result


def torch_scores(
    model: Network, users: Encoded, items: Encoded, user_row: npt.NDArray[np.int64]
) -> Scores:
    """The same scores by torch."""
    with torch.inference_mode():
        user = torch.from_numpy(users.ids), torch.from_numpy(users.numbers)
        item = torch.from_numpy(items.ids), torch.from_numpy(items.numbers)
        rows = torch.from_numpy(user_row)
        if isinstance(model, OneStage):
            scores = model.single_stage(*user, *item, rows)
        else:
            scores = model.joint_stage(model.user_stage(*user), model.item_stage(*item), rows)
    result: Scores = scores.numpy()
    return result


def check(model: Network, graphs: Graphs, encoder: Encoder, examples: Examples) -> Parity:
    """Compare both over batches of several sizes, from packed raw rows.

    The difference of a probability is absolute. That of a regression score is relative to the
    score, or to the deviation of its label where the score is smaller than that; a module of the
    user's own has no such deviation, and 1 stands for it.

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


def differences(model: Network, expected: Scores, found: Scores) -> npt.NDArray[Any]:
    """How far `found` is from `expected`, as `check` measures it: float64 [N, S]."""
    wide = expected.astype(np.float64)
    if not isinstance(model, MultiTaskModel):
        return np.abs(found - wide) / np.maximum(np.abs(wide), 1.0)
    unit = np.maximum(np.abs(wide), model.outputs.units())
    return np.abs(found - wide) / np.where(model.outputs.are_probabilities(), 1.0, unit)
