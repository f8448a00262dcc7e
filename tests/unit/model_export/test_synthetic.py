"""The synthetic feed: seeded, split by time, with the structure it states."""

from __future__ import annotations

import numpy as np
import pytest

from model_export.data import synthetic
from model_export.data.history import histories_before
from model_export.data.impressions import Feed, Impressions
from model_export.data.split import TimeSplit
from model_export.data.synthetic import SyntheticOptions

OPTIONS = SyntheticOptions(loader="synthetic", users=50, items=40, impressions=600)


@pytest.fixture(scope="module")
def feed() -> Feed[Impressions]:
    return synthetic.load(OPTIONS)


def test_the_same_options_give_the_same_feed(feed: Feed[Impressions]) -> None:
    again = synthetic.load(OPTIONS)
    other = synthetic.load(OPTIONS.model_copy(update={"seed": 1}))
    assert again.samples()[0].table.equals(feed.samples()[0].table)
    for name, outcome in feed.train.outcomes.items():
        np.testing.assert_array_equal(outcome, again.train.outcomes[name])
    assert not other.samples()[1].table.equals(feed.samples()[1].table)


def test_sizes_and_outcomes(feed: Feed[Impressions]) -> None:
    assert feed.sizes() == {
        "users": 50,
        "items": 40,
        "train_rows": 480 * 8,
        "validation_rows": 60 * 8,
        "test_rows": 60 * 8,
    }
    for part in (feed.train, feed.validation, feed.test):
        clicked = part.outcomes["click"] == 1
        assert 0.05 < clicked.mean() < 0.6
        for name in ("like", "watch_seconds"):
            assert np.isfinite(part.outcomes[name][clicked]).all()
            assert np.isnan(part.outcomes[name][~clicked]).all()
        assert (part.outcomes["watch_seconds"][clicked] > 0).all()


def test_a_history_is_never_longer_than_what_was_clicked_in_training(
    feed: Feed[Impressions],
) -> None:
    clicks: dict[int, set[str]] = {}
    train = feed.train
    for row in np.flatnonzero(train.outcomes["click"] == 1):
        item = train.items["item_id"][train.item_row[row]]
        clicks.setdefault(int(train.groups[row]), set()).add(item)
    people = dict(zip(train.user_row.tolist(), train.groups.tolist(), strict=True))
    for impression, history in enumerate(train.users["history"]):
        assert set(history) <= clicks.get(people[impression], set())
    assert train.users["history"][0] == []


def test_task_correlation_is_what_it_says() -> None:
    rng = np.random.default_rng(0)
    for correlation in (0.0, 0.5, 1.0):
        vectors = synthetic._catalogue(rng, 4000, correlation).vectors
        first, *others = (vector.ravel() for vector in vectors.values())
        for other in others:
            found = float(np.mean(first * other))  # both have unit variance
            assert found == pytest.approx(correlation, abs=0.04)


def test_histories_are_strictly_before_and_most_recent_first() -> None:
    events = [(1, 10, "a"), (1, 20, "b"), (2, 15, "z"), (1, 20, "c"), (1, 5, "d")]
    people, times = np.array([1, 1, 1, 3, 2]), np.array([20, 21, 5, 99, 16])
    found = histories_before(people, times, events, 3)
    assert found == [["a", "d"], ["c", "b", "a"], [], [], ["z"]]


def test_a_moment_is_never_torn_apart() -> None:
    times = np.array([1, 2, 3, 3, 3, 3, 4, 5, 6, 7])
    periods = TimeSplit(validation=0.3, test=0.2).periods(times)
    assert periods.tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 2, 2]


def test_positions_are_told_and_count_only_when_asked_to(feed: Feed[Impressions]) -> None:
    assert feed.train.positions is not None
    assert feed.train.positions[:9].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 0]
    biased = synthetic.load(OPTIONS.model_copy(update={"position_bias": 2.0})).train
    rates = [
        [part.outcomes["click"][part.positions == place].mean() for place in (0, 7)]
        for part in (feed.train, biased)
    ]
    (first, last), (biased_first, biased_last) = rates
    assert abs(first - last) < 0.1
    assert biased_first == first
    assert biased_last < last - 0.1
