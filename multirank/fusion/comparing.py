"""What a formula does to a recorded request, and what another one does differently, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from multirank.fusion.formulas import Fuse
from multirank.fusion.recorded import Recorded
from service.fusion.compile import ranking
from service.fusion.explain import contributions

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Fused:
    """The ranking that a formula gives.

    Attributes:
        scores: float64 [N].
        order: [N] positions, best first. ranks: [N], 1 is the best.
        contributions: float64 [N, T], as `service.fusion.explain` has them.
    """

    scores: Array
    order: Array
    ranks: Array
    contributions: Array

    def shares(self) -> Array:
        """Contributions in deviations of the scores: of two formulas, they can be compared."""
        finite = self.scores[np.isfinite(self.scores)]
        spread = float(finite.std()) if len(finite) else 0.0
        return self.contributions / (spread or 1.0)


@dataclass(frozen=True)
class Difference:
    """What changes between two formulas.

    Attributes:
        moved: positions of the items whose rank changes, the longest way first.
        why: float64 [N, T], by how many deviations of the score each task's contribution grows.
        kendall_tau: agreement of the two orders, 1 for the same.
    """

    before: Fused
    after: Fused
    moved: Array
    why: Array
    kendall_tau: float

    def overlap(self, top: int) -> int:
        """How many of the best `top` items are the same."""
        return len(set(self.before.order[:top].tolist()) & set(self.after.order[:top].tolist()))


def fuse(recorded: Recorded, formula: Fuse) -> Fused:
    """Fuse and rank, with contributions.

    Raises:
        FusionError: the formula has more tasks than can be explained.
    """
    arguments = (recorded.scores, formula.weights, recorded.features)
    scores = formula.compiled.evaluate(*arguments)
    order, _ = ranking(scores)
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(1, len(order) + 1)
    _, parts = contributions(formula.compiled, *arguments)
    return Fused(scores, order, ranks, parts)


def compare(recorded: Recorded, before: Fuse, after: Fuse) -> Difference:
    """Fuse with both; raises as `fuse`."""
    old, new = fuse(recorded, before), fuse(recorded, after)
    ways = np.abs(new.ranks - old.ranks)
    moved = np.argsort(-ways, kind="stable")[: int((ways > 0).sum())]
    return Difference(
        old, new, moved, new.shares() - old.shares(), kendall_tau(old.ranks, new.ranks)
    )


def kendall_tau(one: Array, other: Array) -> float:
    """Kendall's tau of two rankings without ties, both [N]; 1 for a single item."""
    count = len(one)
    if count < 2:
        return 1.0
    by_one = other[np.argsort(one)]
    discordant = sum(int((by_one[at + 1 :] < by_one[at]).sum()) for at in range(count - 1))
    return 1.0 - 4.0 * discordant / (count * (count - 1))
