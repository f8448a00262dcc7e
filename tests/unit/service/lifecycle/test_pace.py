"""Pace: how long a thread rests after its work."""

from __future__ import annotations

import time

import pytest

from service.lifecycle import pace
from service.lifecycle.pace import Pace


class Thread:
    """A thread's clock, and its rests.

    Attributes:
        worked_s: time that it has had of a processor. rested_s: each of its rests.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.worked_s = 7.0  # before
        self.rested_s: list[float] = []
        monkeypatch.setattr(time, "thread_time", lambda: self.worked_s)
        monkeypatch.setattr(time, "sleep", self.rested_s.append)
        monkeypatch.setattr(pace, "_SHARE", 0.25)
        monkeypatch.setattr(pace, "_MOST_REST_S", 1.0)


@pytest.fixture
def thread(monkeypatch: pytest.MonkeyPatch) -> Thread:
    return Thread(monkeypatch)


def test_it_has_a_share_of_a_core(thread: Thread) -> None:
    loading = Pace(beside_requests=True)
    with loading.working():
        thread.worked_s += 0.0625
        loading.rest()
        thread.worked_s += 0.125
    assert thread.rested_s == [3 * 0.0625, 3 * 0.125]


def test_what_the_thread_does_otherwise_does_not_count(thread: Thread) -> None:
    loading = Pace(beside_requests=True)
    for _ in range(2):
        with loading.working():
            thread.worked_s += 0.0625
        thread.worked_s += 5.0
    assert thread.rested_s == [3 * 0.0625, 3 * 0.0625]


def test_no_version_rests_for_longer_than_it_may(thread: Thread) -> None:
    loading = Pace(beside_requests=True)
    for _ in range(3):
        with loading.working():
            thread.worked_s += 0.25
    assert thread.rested_s == [0.75, 0.25, 0.0]


def test_where_nothing_is_served_it_never_rests(thread: Thread) -> None:
    with Pace(beside_requests=False).working():
        thread.worked_s += 0.25
    assert thread.rested_s == [0.0]


def test_what_is_refused_is_refused_at_once(thread: Thread) -> None:
    def refuse() -> None:
        with Pace(beside_requests=True).working():
            thread.worked_s += 0.25
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        refuse()
    assert thread.rested_s == []
