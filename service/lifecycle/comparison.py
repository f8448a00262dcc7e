"""A new version against the stable one, on the same requests: how alike they rank and score.

A `Comparison` collects; `summary` is what `/models/<name>/compare` and the guard of a canary see.
Only the last requests count, so that a version that turns bad is seen to.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from service.lifecycle.deployment import Guard

Scores = npt.NDArray[np.floating[Any]]

TOP_K = 10
"""Positions whose overlap is measured when a request does not say how many it wants."""

_REMEMBERED = 2_000
_SCORES_REMEMBERED = 200
_SCORES_OF_A_REQUEST = 25
_BINS = 10
_TAU_CANDIDATES = 300
_LEAST_SERVED = 20
"""Requests that a canary must have answered before its failures are held against it."""


def kendall_tau(first: Scores, second: Scores) -> float:
    """Rank correlation tau-b of two score columns [N] (Kendall 1945, with ties), -1 to 1.

    Of more than 300 rows every n-th is taken. NaN when one of the columns is all ties.
    """
    step = -(-len(first) // _TAU_CANDIDATES)
    signs = [np.sign(each[::step, None] - each[None, ::step]) for each in (first, second)]
    norm = math.sqrt(float((signs[0] ** 2).sum()) * float((signs[1] ** 2).sum()))
    return float((signs[0] * signs[1]).sum()) / norm if norm else float("nan")


def overlap(first: Sequence[int], second: Sequence[int], top_k: int) -> float:
    """The share of the first `top_k` of one order that are in the first `top_k` of the other."""
    top_k = min(top_k, len(first))
    return len(set(first[:top_k]) & set(second[:top_k])) / top_k


def population_stability(expected: Scores, found: Scores) -> float:
    """The population stability index of two samples, over deciles of `expected`; 0: the same.

    A bin without values counts as half a value, so that the index is finite.
    """
    edges = np.unique(np.quantile(expected, np.linspace(0, 1, _BINS + 1)[1:-1]))
    shares = []
    for sample in (expected, found):
        counts = np.bincount(np.searchsorted(edges, sample, "right"), minlength=len(edges) + 1)
        shares.append(np.maximum(counts, 0.5) / len(sample))
    return float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())


class Comparison:
    """Collects from any thread.

    Args:
        stable, new: the versions.
        tasks: those that both have.
    """

    def __init__(self, stable: int, new: int, tasks: Sequence[str]) -> None:
        self.stable, self.new, self.tasks = stable, new, tuple(tasks)
        self._lock = threading.Lock()
        self._compared = self._failed = self._shed = 0
        self._overlaps: deque[float] = deque(maxlen=_REMEMBERED)
        self._taus: deque[float] = deque(maxlen=_REMEMBERED)
        self._seconds: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED)
        self._scores: deque[tuple[Scores, Scores]] = deque(maxlen=_SCORES_REMEMBERED)
        self._psi: tuple[int, dict[str, float]] = (0, {})

    def add_ranking(self, shared: float, tau: float) -> None:
        """How alike both rank one request; a tau that is not a number is left out."""
        with self._lock:
            self._overlaps.append(shared)
            if np.isfinite(tau):
                self._taus.append(tau)

    def add_scores(self, stable: Scores, new: Scores) -> None:
        """Task scores [N, T] of one request, columns as `tasks`."""
        step = -(-len(stable) // _SCORES_OF_A_REQUEST)
        with self._lock:
            self._compared += 1
            self._scores.append((stable[::step].copy(), new[::step].copy()))

    def add_seconds(self, stable: float, new: float) -> None:
        """Time that scoring the same request took, one right after the other."""
        with self._lock:
            self._seconds.append((stable, new))

    def add_failure(self) -> None:
        """The new version could not score a request that the stable one scored."""
        with self._lock:
            self._failed += 1

    def add_shed(self) -> None:
        """A request was not compared, to leave the processor to others."""
        with self._lock:
            self._shed += 1

    def summary(self) -> dict[str, Any]:
        """All of it in numbers; None for what is not known yet."""
        with self._lock:
            seconds = np.array(self._seconds).reshape(-1, 2)
            scores, compared = list(self._scores), self._compared
            found: dict[str, Any] = {
                "stable": self.stable,
                "new": self.new,
                "compared": compared,
                "failed": self._failed,
                "shed": self._shed,
                "top_k_overlap": _mean(self._overlaps),
                "kendall_tau": _mean(self._taus),
            }
        if compared and compared != self._psi[0]:
            self._psi = (compared, self._stabilities(scores))
        ratio, ms = None, None
        if len(seconds):
            ratio = float(np.median(seconds[:, 1] / seconds[:, 0]))
            ms = dict(zip(("stable", "new"), (1000 * np.median(seconds, 0)).tolist(), strict=True))
        return found | {"psi": self._psi[1], "latency_ratio": ratio, "score_ms": ms}

    def _stabilities(self, scores: Sequence[tuple[Scores, Scores]]) -> dict[str, float]:
        stable, new = (np.concatenate(each) for each in zip(*scores, strict=True))
        return {
            task: population_stability(stable[:, column], new[:, column])
            for column, task in enumerate(self.tasks)
        }


def merged(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Summaries of several workers as one, weighted by the requests that each compared."""
    first = summaries[0]
    counts = {key: sum(each[key] for each in summaries) for key in ("compared", "failed", "shed")}

    def mean(values: Sequence[tuple[float | None, float]]) -> float | None:
        known = [(value, weight) for value, weight in values if value is not None and weight]
        total = sum(weight for _, weight in known)
        return sum(value * weight for value, weight in known) / total if total else None

    def over(key: str) -> float | None:
        return mean([(each[key], each["compared"]) for each in summaries])

    tasks = {task for each in summaries for task in each["psi"]}
    sides = ("stable", "new")
    served = {
        side: {
            what: sum(each["answered"][side][what] for each in summaries)
            for what in ("requests", "failed", "ended")
        }
        for side in sides
    }
    timed = [each for each in summaries if each["score_ms"]]
    return {
        "stable": first["stable"],
        "new": first["new"],
        **counts,
        "top_k_overlap": over("top_k_overlap"),
        "kendall_tau": over("kendall_tau"),
        "psi": {
            task: mean([(each["psi"].get(task), each["compared"]) for each in summaries])
            for task in sorted(tasks)
        },
        "latency_ratio": over("latency_ratio"),
        "score_ms": {
            side: mean([(each["score_ms"][side], each["compared"]) for each in timed])
            for side in sides
        },
        "answered": served,
    }


def broken(guard: Guard, summary: Mapping[str, Any]) -> list[str]:
    """What of a guard a canary does not keep to; empty while too little is known."""
    found = []
    if ended := summary["answered"]["new"]["ended"]:
        found.append(f"{ended} of its runs took so long that they were ended")
    rates = {}
    for side, counts in summary["answered"].items():
        rates[side] = counts["failed"] / counts["requests"] if counts["requests"] else 0.0
    excess = rates["new"] - rates["stable"]
    if summary["answered"]["new"]["requests"] >= _LEAST_SERVED and excess > guard.max_error_rate:
        found.append(f"{rates['new']:.1%} of its answers failed ({rates['stable']:.1%} of stable)")
    tried = summary["compared"] + summary["failed"]
    if tried < guard.min_requests:
        return found
    if summary["failed"] / tried > guard.max_error_rate:
        found.append(f"{summary['failed']} of {tried} compared requests could not be scored")
    limits = (
        ("top_k_overlap", summary["top_k_overlap"], guard.min_overlap, False),
        ("kendall_tau", summary["kendall_tau"], guard.min_kendall_tau, False),
        ("latency_ratio", summary["latency_ratio"], guard.max_latency_ratio, True),
        *((f"psi of {t}", value, guard.max_psi, True) for t, value in summary["psi"].items()),
    )
    for name, value, limit, is_most in limits:
        if value is not None and (value > limit if is_most else value < limit):
            found.append(f"{name} {value:.3g}, {'at most' if is_most else 'at least'} {limit:g}")
    return found


def lacking(guard: Guard, summary: Mapping[str, Any] | None) -> list[str]:
    """What keeps a canary from being promoted: what it breaks, or that too little is known."""
    if summary is None:
        return ["no canary is compared"]
    if summary["compared"] < guard.min_requests:
        return [f"{summary['compared']} requests were compared, {guard.min_requests} are required"]
    return broken(guard, summary)


def _mean(values: Sequence[float] | deque[float]) -> float | None:
    return sum(values) / len(values) if values else None
