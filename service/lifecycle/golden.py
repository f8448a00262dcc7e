"""Golden rows: a version is to score them as the exporter did, on this machine and by this code."""

from __future__ import annotations

import numpy as np

from bundle.arrays import Golden
from bundle.rows import Rows
from service.lifecycle.refusal import Refused
from service.scoring.item_cache import UNCACHED
from service.scoring.runs import Ended
from service.scoring.stages import Model
from service.values import Candidates, UserSide

_TOLERANCE, _ROUNDED_TOLERANCE = 1e-4, 1e-2
"""Largest |difference| to torch's score, relative above 1: other CPUs sum in another order. The
second is for item tensors that are kept as float16."""


def replay(stages: Model, golden: Golden, tasks: tuple[str, ...]) -> float:
    """Score the golden rows as a request would be scored, and compare.

    Returns:
        The largest |difference|, relative above 1.

    Raises:
        Refused: the graphs fail, or give other scores than torch did, or scores not finite.
        Ended: they took too long.
    """
    try:
        users = UserSide(golden.users, golden.contexts)
        scores = stages.score(users, [uncached(golden.items)], golden.user_row)
    except Ended:
        raise
    except Exception as error:  # rows of another layout, shapes that do not meet, a bad graph
        raise Refused("golden_failed", f"golden rows cannot be scored: {error}") from error
    if scores.shape != golden.scores.shape or scores.shape[1] != len(tasks):
        raise Refused(
            "golden_failed",
            f"scores are {scores.shape} for golden scores {golden.scores.shape} and "
            f"{len(tasks)} tasks",
        )
    if not np.isfinite(scores).all():
        bad = tasks[int(np.argmin(np.isfinite(scores).all(axis=0)))]
        raise Refused("scores_not_finite", f"golden rows give scores that are not finite: {bad}")
    if not len(scores) or not np.isfinite(golden.scores).all():
        raise Refused("golden_mismatch", "the golden scores are none, or not finite")
    difference = np.abs(scores - golden.scores) / np.maximum(np.abs(golden.scores), 1.0)
    allowed = _TOLERANCE if stages.exact else _ROUNDED_TOLERANCE
    if (worst := float(difference.max())) > allowed:
        task = tasks[int(difference.max(axis=0).argmax())]
        raise Refused(
            "golden_mismatch",
            f"scores of {task} are {worst:.2g} away from the exporter's, {allowed:.0e} is allowed",
        )
    return worst


def uncached(rows: Rows) -> Candidates:
    """Candidates whose item tensors are computed afresh and not kept."""
    return Candidates(rows, np.full(len(rows), UNCACHED, np.uint64))
