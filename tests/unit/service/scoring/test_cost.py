"""The cost line: what it has seen exactly it predicts exactly, and it never predicts nonsense."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.scoring.cost import CostLine


def line(points: list[tuple[int, float]]) -> CostLine:
    cost = CostLine()
    for rows, seconds in points:
        cost.observe(rows, seconds)
    return cost


@given(
    st.floats(0, 0.1),
    st.floats(1e-7, 1e-3),
    st.lists(st.integers(1, 2000), min_size=2, max_size=80).filter(
        lambda rows: max(rows) - min(rows) >= 50
    ),
    st.integers(1, 2000),
)
def test_a_line_without_noise_is_recovered(
    fixed: float, per_row: float, observed: list[int], asked: int
) -> None:
    cost = line([(rows, fixed + per_row * rows) for rows in observed])
    predicted = cost.predict(asked)
    assert predicted == pytest.approx(fixed + per_row * asked, rel=1e-4, abs=1e-7)


@given(
    st.lists(st.tuples(st.integers(1, 5000), st.floats(1e-6, 1.0)), min_size=1, max_size=20),
    st.integers(1, 5000),
)
def test_more_rows_never_cost_less(points: list[tuple[int, float]], rows: int) -> None:
    cost = line(points)
    assert 0.0 <= cost.predict(rows) <= cost.predict(rows + 1)


def test_nothing_is_known_at_first() -> None:
    assert CostLine().predict(100) == 0.0


def test_runs_of_one_size_give_a_line_through_the_origin() -> None:
    cost = line([(200, 0.004)] * 5)
    assert cost.predict(200) == pytest.approx(0.004)
    assert cost.predict(50) == pytest.approx(0.001)
    assert cost.predict(1000) == pytest.approx(0.02)


def test_larger_runs_that_took_less_give_a_flat_line() -> None:
    cost = line([(100, 0.3), (200, 0.1)])
    assert cost.predict(1) == cost.predict(10_000) == pytest.approx(0.2, rel=0.05)


def test_a_line_that_would_begin_below_zero_begins_at_zero() -> None:
    assert line([(100, 0.0), (200, 0.3)]).predict(1) == pytest.approx(0.003, rel=0.01)


def test_the_newest_runs_count_most() -> None:
    slow = [(rows, 0.01 * rows) for rows in (100, 200)] * 100
    fast = [(rows, 0.001 * rows) for rows in (100, 200)] * 150
    assert line(slow + fast).predict(150) == pytest.approx(0.15, rel=0.05)
    assert line(fast + slow).predict(150) == pytest.approx(1.5, rel=0.05)
