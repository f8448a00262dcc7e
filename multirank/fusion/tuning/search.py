"""The search: differential evolution over the weights, within their bounds.

Storn and Price, "Differential Evolution", Journal of Global Optimization 11, 1997, as scipy has it.
Metrics of rankings have no gradient. What must be kept is compared as Deb has it ("An efficient
constraint handling method for genetic algorithms", 2000): who keeps all beats who does not, among
those who do the objective decides, among the others how much they miss. The front is made by the
epsilon-constraint method (Haimes, 1971): the search again under other limits, and of all weights
ever tried those that no others beat on both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from multirank.fusion.errors import FusionCommandError
from multirank.fusion.tuning.goals import Kept, Metric
from multirank.fusion.tuning.labelled import Array, Labelled
from service.fusion.compile import CompiledFusion

_FRONT_LIMITS = 4
_POPULATION = 8  # for each weight
_WORST = 1e9


@dataclass(frozen=True)
class Tried:
    """Weights, and what they reach: the objective, then what must be kept, in order."""

    weights: Mapping[str, float]
    values: tuple[float, ...]


@dataclass
class Trial:
    """Measures weights on one part of the data."""

    compiled: CompiledFusion
    part: Labelled
    objective: Metric
    kept: Sequence[Kept]

    def __post_init__(self) -> None:
        metrics = [self.objective, *(each.metric for each in self.kept)]
        self._measures = [metric.on(self.part) for metric in metrics]

    def __call__(self, weights: Mapping[str, float]) -> Tried:
        """Measure weights; all of the formula's must be given."""
        fused = self.part.fuse(self.compiled, weights)
        values = [measure(fused) for measure in self._measures]
        return Tried(dict(weights), tuple(-_WORST if v is None else v for v in values))


@dataclass
class Search:
    """Searches weights on one part of the data.

    Args:
        trial: measures them.
        free: names of the weights to search; the others keep the baseline's value.
        baseline: all weights, where the search begins and what limits are relative to.
        seed: the same seed searches the same way.
        generations: of each search.
    """

    trial: Trial
    free: Sequence[str]
    baseline: Tried
    seed: int
    generations: int
    tried: list[Tried] = field(default_factory=list)

    def keeping(self) -> None:
        """Search for the objective, keeping what must be kept."""
        floors = self._floors()
        self._evolve(lambda values: _deb(values[0], values[1:], floors))

    def best(self) -> Tried | None:
        """The best weights tried that keep what must be kept; None where none do."""
        floors = self._floors()
        allowed = [
            each
            for each in (self.baseline, *self.tried)
            if all(value >= floor for value, floor in zip(each.values[1:], floors, strict=True))
        ]
        return max(allowed, key=lambda each: each.values[0], default=None)

    def front(self) -> list[Tried]:
        """Weights that none other beats on the objective and on the first metric to be kept."""
        self._evolve(lambda values: -values[0])
        self._evolve(lambda values: -values[1])
        by_objective = max(self.tried, key=lambda each: each.values[0])
        by_kept = max(self.tried, key=lambda each: each.values[1])
        limits = np.linspace(by_objective.values[1], by_kept.values[1], _FRONT_LIMITS + 2)[1:-1]
        for limit in limits.tolist():
            self._evolve(lambda values, floor=limit: _deb(values[0], values[1:2], [floor]))  # type: ignore[misc]
        return pareto([self.baseline, *self.tried])

    def _floors(self) -> list[float]:
        return [
            kept.floor(value)
            for kept, value in zip(self.trial.kept, self.baseline.values[1:], strict=True)
        ]

    def _evolve(self, cost: Callable[[tuple[float, ...]], float]) -> None:
        from scipy.optimize import differential_evolution

        weights = self.trial.compiled.weights
        bounds = [(weights[name].minimum, weights[name].maximum) for name in self.free]

        def cost_of(point: Array) -> float:
            given = dict(zip(self.free, point.tolist(), strict=True))
            tried = self.trial({**self.baseline.weights, **given})
            self.tried.append(tried)
            return cost(tried.values)

        differential_evolution(
            cost_of,
            bounds,
            x0=[self.baseline.weights[name] for name in self.free],
            popsize=_POPULATION,
            maxiter=self.generations,
            tol=0,
            polish=False,
            rng=np.random.default_rng(self.seed),
        )


def _deb(objective: float, kept: Sequence[float], floors: Sequence[float]) -> float:
    missed = sum(max(floor - value, 0.0) for value, floor in zip(kept, floors, strict=True))
    return _WORST * (1 + missed) if missed > 0 else -objective


def pareto(tried: Sequence[Tried]) -> list[Tried]:
    """Those that no other beats on the first two values, by the first one."""
    best: list[Tried] = []
    for each in sorted(tried, key=lambda one: (-one.values[0], -one.values[1])):
        if not best or each.values[1] > best[-1].values[1]:
            best.append(each)
    return best[::-1]


def free_weights(compiled: CompiledFusion, named: Sequence[str]) -> list[str]:
    """The weights to search: those that are named, or all that have room within their bounds.

    Raises:
        FusionCommandError: there is none, or one that is named has no room.
    """
    room = [name for name, each in compiled.weights.items() if each.minimum < each.maximum]
    if unfit := [name for name in named if name not in room]:
        raise FusionCommandError(f"--tune: {', '.join(unfit)}: not a weight with bounds to search")
    if not room:
        raise FusionCommandError(f"{compiled.name}: no weight has bounds to search in")
    return [name for name in room if name in named or not named]
