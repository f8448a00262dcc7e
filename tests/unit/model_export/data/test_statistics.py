"""Statistics taken chunk by chunk are those of the whole column."""

from __future__ import annotations

import numpy as np
import pytest

from bundle.packing import hash_value
from model_export.data import statistics
from model_export.data.statistics import NumberFit, VocabularyFit


def test_mean_deviation_and_quantiles_do_not_depend_on_the_chunks() -> None:
    rng = np.random.default_rng(0)
    values = (1e6 + rng.normal(size=1000)).tolist()
    counts = rng.integers(0, 4, 1000)
    whole, chunked = NumberFit(sampled=True), NumberFit(sampled=True)
    whole.add(values, counts)
    for start in range(0, 1000, 90):
        chunked.add(values[start : start + 90], counts[start : start + 90])
    repeated = np.repeat(values, counts)
    for fit in (whole, chunked):
        assert fit.mean_and_deviation() == pytest.approx((repeated.mean(), repeated.std()))
    assert chunked.quantiles([0.1, 0.5]) == whole.quantiles([0.1, 0.5])


def test_quantiles_of_many_values_are_those_of_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "SAMPLED_ROWS", 2000)
    fit = NumberFit(sampled=True)
    for start in range(0, 100_000, 5000):
        fit.add(np.arange(start, start + 5000.0).tolist(), np.ones(5000, np.int64))
    assert fit.quantiles([0.5])[0] == pytest.approx(50_000, rel=0.08)
    assert fit.mean_and_deviation()[0] == pytest.approx(49_999.5)


def test_a_vocabulary_counts_over_all_chunks() -> None:
    fit, ones = VocabularyFit(is_list=True, min_count=2), np.ones(2, np.int64)
    fit.add([["a", "a", "b"], None], ones)
    fit.add([["b"], ["c"]], ones)
    (only,) = fit.hashes()
    assert only == hash_value("b")
