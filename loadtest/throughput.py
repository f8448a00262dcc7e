"""Throughput, bare and served in turn: what the same core does with and without everything around.

Wall time is what counts, on a quiet machine. On a busy one it flatters the service: a scheduler is
fair to threads, and the service has several where the bare loop has one. How much of the core each
got is therefore reported too (`core_share`), and the ratio of CPU times, which is not disturbed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Protocol

from loadtest.bare import BareRound
from loadtest.served import Served, ServedRound
from loadtest.server import pause
from loadtest.testbed import Testbed
from loadtest.workload import MODEL

CACHES: dict[str, Callable[[Testbed], Served]] = {
    "warm": Testbed.warm,
    "half": Testbed.half_warm,
    "cold": Testbed.cold,
}
_CONNECTIONS = (1, 2, 4, 8, 16)
_TRIALS = 3


@dataclass
class Comparison:
    """Rounds of one request size and one state of the item cache.

    Attributes:
        cache: "warm", every item's tensor is cached; "half" of them; "cold", none ever is.
    """

    candidates: int
    cache: str
    bare: list[BareRound] = field(default_factory=list)
    served: list[ServedRound] = field(default_factory=list)

    @property
    def outcomes(self) -> Counter[str]:
        """Outcome -> answers, over all rounds."""
        return sum((each.outcomes for each in self.served), start=Counter())

    def result(self) -> dict[str, Any]:
        """As `bench.json` has it: medians over rounds, and [min, max] beside them."""
        bare = [each.items_per_s for each in self.bare]
        served = [each.items_per_s for each in self.served]
        pairs = list(zip(self.bare, self.served, strict=True))
        bare_ms = median(each.cpu_ms for each in self.bare)
        served_ms = median(each.cpu_ms for each in self.served)
        return {
            "workload": MODEL,
            "candidates": self.candidates,
            "cache": self.cache,
            "bare_items_per_s": round(median(bare)),
            "served_items_per_s": round(median(served)),
            "ratio": round(median(served) / median(bare), 3),
            "bare_items_per_s_range": _range(bare),
            "served_items_per_s_range": _range(served),
            "ratio_range": _range([each.items_per_s / b.items_per_s for b, each in pairs], 3),
            "served_requests_per_s": round(median(each.requests_per_s for each in self.served), 1),
            "bare_cpu_ms": round(bare_ms, 3),
            "served_cpu_ms": round(served_ms, 3),
            "cpu_ratio": round(bare_ms / served_ms, 3),
            "cpu_ratio_range": _range([b.cpu_ms / each.cpu_ms for b, each in pairs], 3),
            "bare_core_share": round(median(b.cpu_seconds / b.seconds for b in self.bare), 3),
            "served_core_share": round(
                median(each.cpu_ms * each.requests_per_s / 1000 for each in self.served), 3
            ),
            "hit_rate": round(median(each.hit_rate for each in self.served), 3),
            "client_share": round(median(each.client_share for each in self.served), 2),
            "outcomes": dict(self.outcomes),
        }


class Round(Protocol):
    """What a timed closed loop found."""

    @property
    def items_per_s(self) -> float:
        """Candidates of right answers in a second."""


class Loaded(Protocol):
    """What can be loaded."""

    def round(self, candidates: int, connections: int, seconds: float) -> Round:
        """Load it for `seconds`."""


def best_connections(service: Loaded, candidates: int, seconds: float) -> dict[int, float]:
    """Median items/s for each number of connections, tried in turn."""
    tried: dict[int, list[float]] = {connections: [] for connections in _CONNECTIONS}
    for _ in range(_TRIALS):
        for connections, found in tried.items():
            found.append(service.round(candidates, connections, seconds).items_per_s)
            pause(0)
    return {connections: median(found) for connections, found in tried.items()}


def compare(
    bed: Testbed,
    sizes: Sequence[int],
    caches: Sequence[str],
    connections: int,
    rounds: int,
    seconds: float,
) -> list[Comparison]:
    """Measure bare, then each state of the cache, for each size; and all that `rounds` times.

    Args:
        sizes: candidates in a request.
        seconds: of each measurement.
    """
    services = {cache: CACHES[cache](bed) for cache in caches}
    found = [Comparison(size, cache) for size in sizes for cache in caches]
    for _ in range(rounds):
        for size in sizes:
            bare = bed.bare.round(size, seconds)
            for comparison in found:
                if comparison.candidates == size:
                    service = services[comparison.cache]
                    service.warm()
                    comparison.bare.append(bare)
                    comparison.served.append(service.round(size, connections, seconds))
                    pause(0)
    return found


def cost_per_candidate(results: Sequence[dict[str, Any]], cache: str) -> dict[str, Any]:
    """Microseconds a candidate by request size, wall and CPU time."""
    chosen = [each for each in results if each["cache"] == cache]
    return {
        "cache": cache,
        "wall_us": {r["candidates"]: round(1e6 / r["served_items_per_s"], 2) for r in chosen},
        "cpu_us": {
            r["candidates"]: round(1e3 * r["served_cpu_ms"] / r["candidates"], 2) for r in chosen
        },
    }


def _range(values: Sequence[float], digits: int | None = None) -> list[float]:
    return [round(min(values), digits), round(max(values), digits)]
