"""MovieLens: no look ahead, and outcomes only where a film was watched."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from model_export.data import movielens_files
from model_export.data.impressions import Feed, Impressions
from model_export.data.movielens import (
    UNKNOWN_YEAR,
    MovieLensOptions,
    Ratings,
    split_feed,
)
from model_export.errors import DataInvalid

Moments = dict[tuple[int, int], int]
PEOPLE = 12
FILMS = 60
PEOPLE_FILE = [
    {"user_id": f"{who}", "age": "30", "gender": "F", "occupation": "other"}
    for who in range(PEOPLE)
]
FILMS_FILE = [
    {
        "item_id": f"{film}",
        "movie_title": f"Film {film}",
        "release_year": "unkonwn" if film == 0 else "1995",
        "class": "Drama War",
    }
    for film in range(FILMS)
]


@pytest.fixture(scope="module")
def ratings() -> Ratings:
    rng = np.random.default_rng(0)
    pairs = [(who, film) for who in range(PEOPLE) for film in rng.permutation(FILMS)[:25]]
    person, film = np.array(pairs).T
    time = rng.integers(100, size=len(pairs)) * 3600  # many at the same moment
    order = np.argsort(time, kind="stable")
    rating = rng.integers(1, 6, size=len(pairs)).astype(np.float32)
    return Ratings(person[order], film[order], rating, time[order])


@pytest.fixture(scope="module")
def feed(ratings: Ratings) -> Feed[Impressions]:
    return split_feed(ratings, PEOPLE_FILE, FILMS_FILE, MovieLensOptions(loader="movielens"))


@pytest.fixture(scope="module")
def moments(ratings: Ratings) -> Moments:
    """(person, film) -> when it was watched."""
    pairs = zip(ratings.person.tolist(), ratings.film.tolist(), strict=True)
    return dict(zip(pairs, ratings.time.tolist(), strict=True))


def _candidates(part: Impressions) -> list[tuple[int, int, int, bool]]:
    """(person, film, impression, watched) of each row."""
    watched = part.outcomes["watched"] == 1
    rows = zip(part.groups, part.item_row, part.user_row, watched, strict=True)
    return [(int(a), int(b), int(c), bool(d)) for a, b, c, d in rows]


def _times(part: Impressions, moments: Moments) -> dict[int, int]:
    """When each impression was: the moment of its watched films."""
    times: dict[int, int] = {}
    for person, film, impression, watched in _candidates(part):
        if watched:
            assert times.setdefault(impression, moments[person, film]) == moments[person, film]
    return times


def test_periods_follow_each_other_and_lose_nothing(
    feed: Feed[Impressions], moments: Moments, ratings: Ratings
) -> None:
    parts = (feed.train, feed.validation, feed.test)
    times = [set(_times(part, moments).values()) for part in parts]
    assert max(times[0]) < min(times[1])
    assert max(times[1]) < min(times[2])
    assert sum(int((part.outcomes["watched"] == 1).sum()) for part in parts) == len(ratings.time)


def test_histories_hold_what_was_watched_strictly_before(
    feed: Feed[Impressions], moments: Moments, ratings: Ratings
) -> None:
    for part in (feed.train, feed.validation, feed.test):
        times = _times(part, moments)
        people = {impression: person for person, _, impression, _ in _candidates(part)}
        for impression, time in times.items():
            person = people[impression]
            history = [int(film) for film in part.users["history"][impression]]
            seen = [moments[person, film] for film in history]
            before = sum(moments[person, f] < time for w, f in moments if w == person)
            assert len(history) == min(before, 30)
            assert all(moment < time for moment in seen)
            assert seen == sorted(seen, reverse=True)
            rated = dict(
                zip(zip(ratings.person, ratings.film, strict=True), ratings.rating, strict=True)
            )
            liked = [film for film in history if rated[person, film] >= 4]
            assert [int(film) for film in part.users["liked"][impression]] == liked


def test_unwatched_films_are_drawn_without_a_look_ahead(
    feed: Feed[Impressions], moments: Moments, ratings: Ratings
) -> None:
    ends = [max(_times(part, moments).values()) for part in (feed.train, feed.validation)]
    ends.append(int(ratings.time.max()))
    for part, end in zip((feed.train, feed.validation, feed.test), ends, strict=True):
        known = set(ratings.film[ratings.time <= end].tolist())
        later = 0
        for person, film, _, watched in _candidates(part):
            assert film in known
            if not watched:
                # Not watched by the end of the period; what comes later is not known yet.
                assert moments.get((person, film), end + 1) > end
                later += (person, film) in moments
        assert later > 0 or end == ratings.time.max()


def test_ratings_are_there_where_a_film_was_watched_and_nowhere_else(
    feed: Feed[Impressions],
) -> None:
    for part in (feed.train, feed.validation, feed.test):
        watched = part.outcomes["watched"] == 1
        assert np.isfinite(part.outcomes["rating"][watched]).all()
        assert np.isnan(part.outcomes["rating"][~watched]).all()
        assert (~watched).sum() == 4 * watched.sum()


def test_an_impression_has_one_moment_and_its_rows_lie_together(feed: Feed[Impressions]) -> None:
    assert (np.diff(feed.train.user_row) >= 0).all()
    assert len(feed.train.users["age"]) == feed.train.user_row[-1] + 1


def test_samples_hold_every_user_and_item_as_they_are_at_the_end(
    feed: Feed[Impressions], moments: Moments
) -> None:
    users = feed.samples()[0].table.to_pydict()
    assert users["user_id"] == [str(who) for who in range(PEOPLE)]
    for person, history in enumerate(users["history"]):
        seen = [moments[person, int(film)] for film in history]
        assert seen == sorted(seen, reverse=True)
        assert seen[0] == max(time for (who, _), time in moments.items() if who == person)
    items = feed.samples()[1].table.to_pydict()
    assert items["title"][5] == "Film 5"
    assert items["year"][:2] == [UNKNOWN_YEAR, 1995.0]
    assert feed.samples()[1].display == ("title",)


def test_the_same_seed_draws_the_same_films(ratings: Ratings, feed: Feed[Impressions]) -> None:
    options = [MovieLensOptions(loader="movielens", seed=seed) for seed in (0, 1)]
    same, other = (
        split_feed(ratings, PEOPLE_FILE, FILMS_FILE, one).train.item_row for one in options
    )
    np.testing.assert_array_equal(same, feed.train.item_row)
    assert (other != same).any()


def _fake_download(monkeypatch: pytest.MonkeyPatch, files: dict[str, str]) -> None:
    """pip that writes a wheel of `files`."""

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert command[:4] == [sys.executable, "-m", "pip", "download"]
        wheel = f"{command[command.index('--dest') + 1]}/recbole-1.2.1-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for name, text in files.items():
                archive.writestr(name, text)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)


def test_files_are_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = "recbole/dataset_example/ml-100k/ml-100k"
    contents = {f"{inside}.{end}": "id:token\n1\n" for end in ("inter", "item", "user")}
    _fake_download(monkeypatch, {**contents, "recbole/big.py": "x"})
    directory = movielens_files.fetch(tmp_path / "cache")
    assert sorted(path.name for path in directory.iterdir()) == [
        "ml-100k.inter",
        "ml-100k.item",
        "ml-100k.user",
    ]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["ml-100k"]
    monkeypatch.setattr(subprocess, "run", None)
    assert movielens_files.fetch(tmp_path / "cache") == directory
    assert movielens_files.read(directory / "ml-100k.user") == [{"id": "1"}]


def test_a_wheel_without_the_files_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fake_download(monkeypatch, {"recbole/__init__.py": ""})
    with pytest.raises(DataInvalid, match=r"has no recbole/dataset_example/ml-100k/ml-100k\.inter"):
        movielens_files.fetch(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_download_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "ERROR: no network")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(DataInvalid, match="no network"):
        movielens_files.fetch(tmp_path)


def test_a_torn_row_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ml-100k.user"
    path.write_text("id:token\tage:token\n1\t30\n2\n")
    with pytest.raises(DataInvalid, match=r"ml-100k\.user: line 3 has 1 columns, expected 2"):
        movielens_files.read(path)
