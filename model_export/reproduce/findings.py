"""Means, spreads and what they say: shared by the reports."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from statistics import mean, stdev

from scipy.stats import t


def spread(values: Sequence[float]) -> str:
    """`0.9441 ± 0.0004`: mean and deviation over the seeds."""
    deviation = f" ± {stdev(values):.4f}" if len(values) > 1 else ""
    return f"{mean(values):.4f}{deviation}"


def compared(better: Sequence[float], worse: Sequence[float]) -> str:
    """Whether `better` is above `worse`, seed by seed: a paired t-test, two-sided at 5 %."""
    differences = [one - other for one, other in zip(better, worse, strict=True)]
    difference = mean(differences)
    if len(differences) < 2:
        return f"{difference:+.4f} in one seed: it cannot be told"
    error = stdev(differences) / len(differences) ** 0.5
    if abs(difference) <= float(t.ppf(0.975, len(differences) - 1)) * error:
        word = "it cannot be told"
    else:
        word = "it appears" if difference > 0 else "it does NOT appear, the reverse does"
    return f"{word} ({difference:+.4f}, standard error {error:.4f}, {len(differences)} seeds)"


def today() -> str:
    """The date in UTC, as 2026-11-23."""
    return dt.datetime.now(dt.UTC).date().isoformat()
