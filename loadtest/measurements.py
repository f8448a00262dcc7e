"""What was measured: exact times, where locust keeps whole milliseconds, and how answers fell out.

A `Recorder` lives in the locust process and writes `Measurements` to a file at the end; `summary`
makes of them what people and scripts read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from loadtest.answers import Answer

PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}


@dataclass
class Measurements:
    """Everything a load test found.

    Attributes:
        seconds: length of the timed part.
        latency_ms: of each right answer in the timed part, as the client saw it.
        service_ms: of the same answers, as the service reported it.
        failures: message -> how often; warm-up included.
        degraded: reason -> how many right answers; warm-up included.
        versions: model version -> how many right answers; warm-up included.
    """

    seconds: float = 0.0
    latency_ms: list[float] = field(default_factory=list)
    service_ms: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    degraded: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    degraded_answers: int = 0

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_bytes(orjson.dumps(vars(self)))

    @classmethod
    def load(cls, path: Path) -> Measurements:
        """Read what `save` wrote."""
        content = orjson.loads(path.read_bytes())
        for name in ("failures", "degraded", "versions"):
            content[name] = Counter(content[name])
        return cls(**content)


class Recorder:
    """Collects measurements.

    Args:
        starts_at: when the warm-up ends, seconds on the clock that `record` is given. Answers that
            arrive before are checked and counted, not timed.
    """

    def __init__(self, starts_at: float) -> None:
        self._starts_at = starts_at
        self.found = Measurements()

    def record(self, outcome: Answer | str, latency_ms: float, now: float) -> None:
        """Add an answer, or the message of a failure, that came at `now` after `latency_ms`."""
        found = self.found
        if now >= self._starts_at:
            found.seconds = max(found.seconds, now - self._starts_at)
        if isinstance(outcome, str):
            found.failures[outcome] += 1
            return
        found.versions[str(outcome.version)] += 1
        found.degraded_answers += bool(outcome.degraded)
        found.degraded.update(outcome.degraded)
        if now >= self._starts_at:
            found.latency_ms.append(latency_ms)
            found.service_ms.append(outcome.service_ms)


def percentiles(values_ms: Sequence[float]) -> dict[str, float | None]:
    """Percentiles by name, milliseconds; each is a measured value, none is interpolated."""
    if not values_ms:
        return dict.fromkeys(PERCENTILES)
    found = np.percentile(np.asarray(values_ms), list(PERCENTILES.values()), method="higher")
    return dict(zip(PERCENTILES, found.round(3).tolist(), strict=True))


def summary(found: Measurements, candidates: float) -> dict[str, Any]:
    """The JSON object of a load test.

    Args:
        candidates: in each request, on average.
    """
    timed = len(found.latency_ms)
    requests_per_s = timed / found.seconds if found.seconds else 0.0
    return {
        "seconds": round(found.seconds, 3),
        "requests": timed,
        "requests_per_s": round(requests_per_s, 2),
        "candidates_per_s": round(requests_per_s * candidates, 1),
        "failures": found.failures.total(),
        "failure_messages": dict(found.failures.most_common(10)),
        "degraded": found.degraded_answers,
        "degraded_reasons": dict(found.degraded),
        "versions": dict(found.versions),
        "latency_ms": percentiles(found.latency_ms),
        "service_ms": percentiles(found.service_ms),
    }
