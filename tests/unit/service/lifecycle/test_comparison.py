"""How alike two versions rank and score: against scipy, by hand, and at the edges."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from service.lifecycle.comparison import (
    Comparison,
    broken,
    kendall_tau,
    merged,
    overlap,
    population_stability,
)
from service.lifecycle.deployment import Guard

columns = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=40).map(
    lambda pairs: np.array(pairs, np.float64)
)


@given(columns)
def test_kendall_tau_is_scipys(pairs: Any) -> None:
    first, second = pairs.T
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert np.isnan(kendall_tau(first, second))
        return
    assert kendall_tau(first, second) == pytest.approx(kendalltau(first, second).statistic)


def test_kendall_tau_of_many_candidates_is_of_a_part_of_them() -> None:
    scores = np.random.default_rng(0).random(2000)
    assert kendall_tau(scores, scores**3) == pytest.approx(1.0)
    assert kendall_tau(scores, -scores) == pytest.approx(-1.0)


def test_overlap_of_the_first_few() -> None:
    assert overlap([1, 2, 3, 4], [2, 1, 4, 3], 2) == 1.0
    assert overlap([1, 2, 3, 4], [3, 4, 1, 2], 2) == 0.0
    assert overlap([1, 2], [2, 1], 10) == 1.0


def test_population_stability() -> None:
    sample = np.random.default_rng(0).random(10_000)
    assert population_stability(sample, sample) == 0.0
    assert population_stability(sample, np.random.default_rng(1).random(10_000)) < 0.01
    assert population_stability(sample, sample * 0.5) > 1.0
    constant = np.ones(100)
    assert population_stability(constant, constant) == 0.0
    assert population_stability(constant, constant * 2) == 0.0  # above the one edge, both


def test_population_stability_by_hand() -> None:
    expected, found = np.arange(100.0), np.repeat(np.arange(5, 100, 10.0), 10)
    found[:10] = 15.0  # nothing in the first tenth, twice as much in the second
    shares = np.array([0.005, 0.2])
    index = float(((shares - 0.1) * np.log(shares / 0.1)).sum())
    assert population_stability(expected, found) == pytest.approx(index)


def told(**changes: Any) -> dict[str, Any]:
    comparison = Comparison(1, 2, ("click",))
    for number in range(10):
        comparison.add_scores(np.full((4, 1), number / 10), np.full((4, 1), number / 10))
        comparison.add_ranking(0.5, 0.25)
        comparison.add_seconds(0.001, 0.0015)
    answered = {side: {"requests": 100, "failed": 0, "ended": 0} for side in ("stable", "new")}
    return comparison.summary() | {"answered": answered} | changes


def test_a_summary_and_the_sum_of_several() -> None:
    one = told()
    assert one["top_k_overlap"] == 0.5
    assert one["latency_ratio"] == pytest.approx(1.5)
    both = merged([one, told(compared=30, top_k_overlap=0.9, latency_ratio=None)])
    assert both["compared"] == 40
    assert both["top_k_overlap"] == pytest.approx(0.8)
    assert both["latency_ratio"] == pytest.approx(1.5)
    assert both["answered"]["new"] == {"requests": 200, "failed": 0, "ended": 0}
    nothing = Comparison(1, 2, ()).summary()
    assert (nothing["kendall_tau"], nothing["psi"], nothing["score_ms"]) == (None, {}, None)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, []),
        ({"kendall_tau": 0.1}, ["kendall_tau 0.1, at least 0.2"]),
        ({"top_k_overlap": 0.2}, ["top_k_overlap 0.2, at least 0.3"]),
        ({"psi": {"click": 1.5}}, ["psi of click 1.5, at most 1"]),
        ({"latency_ratio": 3.0}, ["latency_ratio 3, at most 2"]),
        ({"failed": 1}, ["1 of 11 compared requests could not be scored"]),
        ({"compared": 9, "kendall_tau": -1.0}, []),
        (
            {
                "answered": {
                    "stable": {"requests": 9, "failed": 0, "ended": 0},
                    "new": {"requests": 20, "failed": 2, "ended": 0},
                },
                "compared": 0,
            },
            ["10.0% of its answers failed (0.0% of stable)"],
        ),
        (
            {
                "answered": {
                    "stable": {"requests": 9, "failed": 0, "ended": 1},
                    "new": {"requests": 0, "failed": 0, "ended": 1},
                },
                "compared": 0,
            },
            ["1 of its runs took so long that they were ended"],
        ),
        (
            {
                "answered": {
                    "stable": {"requests": 9, "failed": 0, "ended": 0},
                    "new": {"requests": 19, "failed": 19, "ended": 0},
                }
            },
            [],
        ),
    ],
)
def test_what_breaks_a_guard(changes: dict[str, Any], says: list[str]) -> None:
    assert broken(Guard(min_requests=10), told(**changes)) == says
