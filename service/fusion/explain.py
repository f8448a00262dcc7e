"""Explain, beside the fuse stage: what each task did for each candidate, and what without it.

Contributions are exact Shapley values (Shapley, A Value for n-Person Games, 1953) in the form of
Lundberg and Lee, A Unified Approach to Interpreting Model Predictions, NIPS 2017, equation 8:

    contribution_t = sum over S, a set of tasks without t, of
                     |S|! (M - |S| - 1)! / M!  *  (fused with S and t  -  fused with S)

The players are the tasks that the formula uses. A task that is absent from a set stands, for all
candidates at once, at its mean over the request's candidates; weights and features keep their
values. Of all ways to divide the difference, this is the one that adds up to it, treats tasks
alike that act alike, and gives a task without effect exactly 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import factorial

import numpy as np
from numpy.typing import NDArray

from service.fusion.compile import NO_FEATURES, CompiledFusion, Features, ranking
from service.fusion.errors import FusionError
from service.fusion.operators import mean

MAX_TASKS = 10  # 2 ** MAX_TASKS evaluations


def contributions(
    compiled: CompiledFusion,
    task_scores: NDArray[np.float32],
    weights: Mapping[str, float],
    features: Features = NO_FEATURES,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How the tasks share each candidate's distance from the baseline.

    Args:
        compiled: the fusion.
        task_scores: [N, T] float32.
        weights: as `bind_weights` gives them.
        features: as for `evaluate`.

    Returns:
        baseline [N] float64: fused with every task at its mean; it differs between candidates
        only by their features. contributions [N, T] float64: they add up to fused - baseline, to
        rounding; NaN for a candidate for which any of the 2 ** M scores is not finite.

    Raises:
        FusionError: the formula uses more than `MAX_TASKS` tasks.
    """
    players = [compiled.tasks.index(task) for task in compiled.tasks_used]
    count = len(players)
    if count > MAX_TASKS:
        raise FusionError(f"contributions are computed for {MAX_TASKS} tasks at most, not {count}")
    # Row s of `fused`: the tasks at the mean are those whose bit is not set in s.
    sets = np.arange(2**count)
    absent = [[p for bit, p in enumerate(players) if not s >> bit & 1] for s in range(2**count)]
    fused = np.stack(
        [compiled.evaluate(_at_mean(task_scores, out), weights, features) for out in absent]
    )
    sizes = np.array([count - len(out) for out in absent])
    share = np.array(
        [factorial(size) * factorial(count - size - 1) / factorial(count) for size in range(count)]
    )
    result = np.zeros(task_scores.shape, np.float64)
    with np.errstate(all="ignore"):
        for bit, player in enumerate(players):
            without = sets[sets >> bit & 1 == 0]
            gains = fused[without | 1 << bit] - fused[without]
            result[:, player] = share[sizes[without]] @ gains
    result[~np.isfinite(fused).all(axis=0)] = np.nan
    return fused[0], result


def ranks_without(
    compiled: CompiledFusion,
    task_scores: NDArray[np.float32],
    weights: Mapping[str, float],
    features: Features = NO_FEATURES,
) -> NDArray[np.int64]:
    """The rank that each candidate would have, were one task at its mean for all candidates.

    Args and raises: as `CompiledFusion.evaluate`.

    Returns:
        [N, T] int64, 1 is the best; the actual rank for a task that the formula does not use.
    """
    ranks = np.empty(task_scores.shape, np.int64)
    for column in range(len(compiled.tasks)):
        changed = _at_mean(task_scores, [column])
        order, _ = ranking(compiled.evaluate(changed, weights, features))
        ranks[order, column] = np.arange(1, len(order) + 1)
    return ranks


def _at_mean(task_scores: NDArray[np.float32], columns: Iterable[int]) -> NDArray[np.float64]:
    """A copy of task_scores with these columns at the mean of their finite scores."""
    changed = task_scores.astype(np.float64)
    for column in columns:
        changed[:, column] = mean(changed[:, column])
    return changed
