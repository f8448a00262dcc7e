"""What a search came to: both splits side by side, how sure it is, and whether it is any better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from multirank.fusion.tuning.goals import Kept, Metric
from multirank.fusion.tuning.labelled import Labelled
from multirank.fusion.tuning.search import Search, Trial, Tried
from service.fusion.compile import CompiledFusion

_RESAMPLES = 200


@dataclass(frozen=True)
class Outcome:
    """The baseline and the weights found, on the rows searched and on rows held out.

    Attributes:
        found: None where no weights keep what must be kept.
        better: whether the objective is higher on the rows held out, and all is kept there.
        missed: what is not kept there, and by what.
        interval: of the gain on the rows held out, 95 %, by resampling its groups.
        front: on the rows searched; front_held_out: the same weights, on the rows held out.
        tried: how many weights were tried.
    """

    metrics: tuple[str, ...]
    kept: tuple[str, ...]
    searched: str
    held_out: str
    baseline: Tried
    baseline_held_out: Tried
    found: Tried | None
    found_held_out: Tried | None
    better: bool
    missed: tuple[str, ...]
    interval: tuple[float, float] | None
    front: Sequence[Tried]
    front_held_out: Sequence[Tried]
    tried: int


def tune(
    compiled: CompiledFusion,
    searched: Labelled,
    held_out: Labelled,
    objective: Metric,
    kept: Sequence[Kept],
    free: Sequence[str],
    baseline: Mapping[str, float],
    seed: int,
    generations: int,
) -> Outcome:
    """Search weights on one part, and measure them on another that the search has not seen.

    Raises:
        FusionCommandError: a part has no labels for a metric.
    """
    trial = Trial(compiled, searched, objective, kept)
    judge = Trial(compiled, held_out, objective, kept)
    start, start_held_out = trial(baseline), judge(baseline)
    search = Search(trial, free, start, seed, generations)
    search.keeping()
    front = search.front() if kept else []
    found = search.best()
    if found is not None and found.values[0] <= start.values[0]:
        found = None if _missed(kept, start, start) else start
    judged = judge(found.weights) if found else None
    missed = _missed(kept, judged, start_held_out) if judged else ()
    improved = found is not None and found.values[0] > start.values[0]
    return Outcome(
        metrics=(objective.text, *(each.metric.text for each in kept)),
        kept=tuple(each.text for each in kept),
        searched=searched.source,
        held_out=held_out.source,
        baseline=start,
        baseline_held_out=start_held_out,
        found=found,
        found_held_out=judged,
        better=improved
        and judged is not None
        and judged.values[0] > start_held_out.values[0]
        and not missed,
        missed=missed,
        interval=_interval(judge, found.weights, baseline, seed) if found and improved else None,
        front=front,
        front_held_out=[judge(each.weights) for each in front],
        tried=len(search.tried),
    )


def verdict(outcome: Outcome) -> str:
    """In a sentence, whether the weights found are better."""
    if outcome.found is None:
        return f"nothing found keeps {' and '.join(outcome.kept)} on the rows searched"
    if outcome.found.weights == outcome.baseline.weights:
        return "nothing better than the baseline was found"
    assert outcome.found_held_out is not None  # with `found`
    gain = outcome.found_held_out.values[0] - outcome.baseline_held_out.values[0]
    low, high = outcome.interval or (gain, gain)
    interval = f"95 % interval {low:+.4f} to {high:+.4f}"
    said = f"{outcome.metrics[0]} {gain:+.4f} on rows held out, {interval}"
    if not outcome.better:
        not_kept = f"; not kept there: {', '.join(outcome.missed)}" if outcome.missed else ""
        return f"NOT better than the baseline: {said}{not_kept}"
    return f"better than the baseline: {said}" + (
        "" if low > 0 else "; it may be chance" if high > 0 else ""
    )


def _missed(kept: Sequence[Kept], tried: Tried, baseline: Tried) -> tuple[str, ...]:
    """What falls below its floor, in words."""
    values = zip(kept, tried.values[1:], baseline.values[1:], strict=True)
    return tuple(
        f"{each.metric.text} {value:.4f} < {each.floor(reference):.4f}"
        for each, value, reference in values
        if value < each.floor(reference)
    )


def _interval(
    judge: Trial, found: Mapping[str, float], baseline: Mapping[str, float], seed: int
) -> tuple[float, float]:
    """95 % of the gains over resampled groups (people), paired: Efron, 1979."""
    part, rng = judge.part, np.random.default_rng(seed)
    fused = [part.fuse(judge.compiled, weights) for weights in (found, baseline)]
    order = np.argsort(part.groups, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(part.groups[order]) != 0])
    of_group = np.split(order, starts[1:])
    gains = []
    for _ in range(_RESAMPLES):
        drawn = rng.integers(len(of_group), size=len(of_group))
        rows = np.concatenate([of_group[each] for each in drawn])
        copy = np.repeat(np.arange(len(drawn)), [len(of_group[each]) for each in drawn])
        gains.append(_gain(part, rows, copy, fused, judge.objective))
    finite: Any = [gain for gain in gains if gain is not None]
    low, high = np.quantile(finite, (0.025, 0.975)) if finite else (np.nan, np.nan)
    return float(low), float(high)


def _gain(
    part: Labelled, rows: Any, copy: Any, fused: Sequence[Any], metric: Metric
) -> float | None:
    """The gain on resampled rows; a group drawn twice counts as two."""
    resampled = part.take(rows, part.source)
    lists = np.unique(np.stack((copy, resampled.lists)), axis=1, return_inverse=True)[1]
    order = np.argsort(lists, kind="stable")
    drawn = Labelled(**{**vars(resampled), "lists": lists, "groups": copy}).take(order, "")
    measure = metric.on(drawn)
    found, baseline = (measure(each[rows][order]) for each in fused)
    return None if found is None or baseline is None else found - baseline
