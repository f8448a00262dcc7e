"""Measurements: what is timed, what is only counted, and the figures made of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtest.answers import Answer
from loadtest.measurements import Measurements, Recorder, percentiles, summary


def test_the_warm_up_is_counted_but_not_timed() -> None:
    recorder = Recorder(starts_at=100.0)
    recorder.record(Answer(1, 50.0, ()), 60.0, now=99.0)
    recorder.record("status 503", 1.0, now=99.5)
    recorder.record(Answer(2, 4.0, ()), 5.0, now=101.0)
    recorder.record(Answer(2, 6.0, ()), 7.0, now=102.0)
    recorder.record("status 503", 1.0, now=104.0)

    found = recorder.found
    assert found.seconds == 4.0
    assert found.latency_ms == [5.0, 7.0]
    assert found.service_ms == [4.0, 6.0]
    assert found.failures == {"status 503": 2}
    assert found.versions == {"1": 1, "2": 2}


def test_an_answer_with_two_reasons_is_one_degraded_answer() -> None:
    recorder = Recorder(starts_at=0.0)
    recorder.record(Answer(1, 1.0, ("user_not_found", "item_not_found")), 1.0, now=1.0)
    recorder.record(Answer(1, 1.0, ("item_not_found",)), 1.0, now=1.0)
    recorder.record(Answer(1, 1.0, ()), 1.0, now=1.0)

    assert recorder.found.degraded_answers == 2
    assert recorder.found.degraded == {"user_not_found": 1, "item_not_found": 2}


def test_percentiles_are_values_that_were_measured_and_never_below() -> None:
    assert percentiles([float(ms) for ms in range(1000, 0, -1)]) == {
        "p50": 501.0,
        "p90": 901.0,
        "p99": 991.0,
        "p99.9": 1000.0,
        "max": 1000.0,
    }
    assert percentiles([1.0, 9.0])["p50"] == 9.0
    assert set(percentiles([]).values()) == {None}


def test_summary_counts_right_answers_of_the_timed_part() -> None:
    found = Measurements(seconds=2.0, latency_ms=[4.0] * 10, service_ms=[3.0] * 10)
    found.failures.update({"status 500": 3, "not best first": 1})

    result = summary(found, candidates=200)
    assert result["requests"] == 10
    assert result["requests_per_s"] == 5.0
    assert result["candidates_per_s"] == 1000.0
    assert result["failures"] == 4
    assert result["failure_messages"] == {"status 500": 3, "not best first": 1}
    assert result["latency_ms"]["p99.9"] == 4.0
    assert result["service_ms"]["p50"] == 3.0


def test_nothing_measured_is_no_division_by_zero() -> None:
    result = summary(Measurements(), candidates=200)

    assert result["requests_per_s"] == 0.0
    assert result["latency_ms"]["p50"] is None


@pytest.mark.parametrize("count", [0, 3])
def test_what_was_saved_is_what_is_loaded(tmp_path: Path, count: int) -> None:
    recorder = Recorder(starts_at=0.0)
    for now in range(count):
        recorder.record(Answer(3, 1.25, ("item_not_found",)), 2.5, float(now))
        recorder.record("status 500", 1.0, float(now))
    recorder.found.save(tmp_path / "found.json")

    assert Measurements.load(tmp_path / "found.json") == recorder.found
