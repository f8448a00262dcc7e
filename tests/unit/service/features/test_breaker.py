"""The circuit breaker: failures open it, one answer closes it, probes are few and jittered."""

from __future__ import annotations

import pytest

from service.features.breaker import CircuitBreaker, State


class Bench:
    """A breaker on a clock of the test's own."""

    def __init__(self, jitter: float = 1.0) -> None:
        self.time = 1000.0
        self.states: list[State] = []
        self.breaker = CircuitBreaker(
            "fake", self.states.append, now=lambda: self.time, jitter=lambda: jitter
        )

    def open(self) -> None:
        for _ in range(3):
            self.breaker.failed()

    def wait_for_probe(self) -> float:
        """Seconds until a read is let through."""
        started = self.time
        while not self.breaker.admits():
            self.time += 0.001
            assert self.time < started + 60, "never"
        return self.time - started


def test_failures_in_a_row_open_it() -> None:
    bench = Bench()
    for _ in range(5):
        bench.breaker.failed()
        bench.breaker.failed()
        bench.breaker.succeeded()
    assert bench.breaker.admits()
    bench.open()
    assert not bench.breaker.admits()
    assert bench.states == ["open"]


def test_one_probe_at_a_time() -> None:
    bench = Bench()
    bench.open()
    assert bench.wait_for_probe() == pytest.approx(0.1, abs=0.002)
    assert bench.breaker.state == "half_open"
    assert not bench.breaker.admits()
    bench.breaker.succeeded()
    assert bench.breaker.admits()
    assert bench.breaker.admits()
    assert bench.states == ["open", "half_open", "closed"]


def test_it_waits_longer_each_time_and_never_long() -> None:
    bench = Bench()
    bench.open()
    waits = []
    for _ in range(2000):  # half an hour without the store
        waits.append(bench.wait_for_probe())
        bench.breaker.failed()
        assert bench.breaker.state == "open"
    assert waits[:5] == pytest.approx([0.1, 0.2, 0.4, 0.8, 0.8], abs=0.003)
    assert max(waits) < 0.81
    bench.breaker.succeeded()
    bench.open()
    assert bench.wait_for_probe() == pytest.approx(0.1, abs=0.002)


def test_half_of_the_wait_is_drawn() -> None:
    first, last = Bench(jitter=0.0), Bench(jitter=0.9999)
    first.open()
    last.open()
    assert first.wait_for_probe() == pytest.approx(0.05, abs=0.002)
    assert last.wait_for_probe() == pytest.approx(0.1, abs=0.002)


def test_a_probe_that_nobody_reports_on_is_not_the_last() -> None:
    bench = Bench()
    bench.open()
    bench.wait_for_probe()
    assert bench.wait_for_probe() == pytest.approx(0.2, abs=0.003)
    assert bench.breaker.state == "half_open"
