"""MovieLens-100k as a ranking feed: what a person watched among what there was to watch.

Each rating is a film watched at that moment. Beside the films that a person watched at a moment
stand sampled films that the person did not watch; they have no rating. Split by global time, and
nothing looks ahead: a period's unwatched films are drawn from the films known by its end and
exclude only what the person had watched by then; a history holds what was rated strictly before.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from model_export.data import movielens_files
from model_export.data.history import histories_before
from model_export.data.impressions import Columns, EntitySample, Feed, Impressions
from model_export.data.split import TimeSplit

UNKNOWN_YEAR = 0.0
"""The year of the two films without one. Left out, it would be a default, and every answer with one
of them would say so."""

_LIKED = 4.0


class MovieLensOptions(BaseModel):
    """How the feed is made.

    Attributes:
        cache: where the downloaded files are kept.
        seed: of the sampled unwatched films.
        unwatched: sampled unwatched films for each watched one.
        history: the most films of a history.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    loader: Literal["movielens"]
    cache: Path = Path(".data")
    seed: int = 0
    unwatched: Annotated[int, Field(ge=1)] = 4
    history: Annotated[int, Field(ge=1)] = 30
    split: TimeSplit = TimeSplit()


def load(options: MovieLensOptions) -> Feed[Impressions]:
    """Fetch, read and split MovieLens-100k.

    Raises:
        DataInvalid: the files cannot be fetched or read.
    """
    directory = movielens_files.fetch(options.cache)
    people = movielens_files.read(directory / "ml-100k.user")
    films = movielens_files.read(directory / "ml-100k.item")
    ratings = _ratings(movielens_files.read(directory / "ml-100k.inter"), people, films)
    return split_feed(ratings, people, films, options)


@dataclass(frozen=True)
class Ratings:
    """All ratings, by time; person and film are row numbers. Each array is [N]."""

    person: npt.NDArray[np.int64]
    film: npt.NDArray[np.int64]
    rating: npt.NDArray[np.float32]
    time: npt.NDArray[np.int64]


def split_feed(
    ratings: Ratings,
    people: list[dict[str, str]],
    films: list[dict[str, str]],
    options: MovieLensOptions,
) -> Feed[Impressions]:
    """Turn ratings into impressions with sampled unwatched films, split by time."""
    users = _Users(people, films, ratings, options.history)
    items = _item_columns(films)
    periods = options.split.periods(ratings.time)
    rng = np.random.default_rng(options.seed)
    train, validation, test = (
        _impressions(ratings, periods, period, users, items, options.unwatched, rng)
        for period in range(3)
    )
    everyone = np.arange(len(people))
    at_end = np.full(len(people), ratings.time.max() + 1)
    user_table = {
        "user_id": [person["user_id"] for person in people],
        **users.columns(everyone, at_end),
    }
    item_table = {**items, "title": [film["movie_title"] for film in films]}
    return Feed(
        description="MovieLens-100k (GroupLens), ratings from 1997-09 to 1998-04",
        train=train,
        validation=validation,
        test=test,
        users=EntitySample("user", pa.table(user_table), key="user_id"),
        items=EntitySample("item", pa.table(item_table), key="item_id", display=("title",)),
    )


class _Users:
    """User columns as they were at a moment."""

    def __init__(
        self,
        people: list[dict[str, str]],
        films: list[dict[str, str]],
        ratings: Ratings,
        history: int,
    ) -> None:
        self._people = people
        self._history = history
        events = zip(ratings.person.tolist(), ratings.time.tolist(), ratings.film, strict=True)
        self._watched = [(who, time, films[film]["item_id"]) for who, time, film in events]
        liked = np.flatnonzero(ratings.rating >= _LIKED)
        self._liked = [self._watched[row] for row in liked.tolist()]

    def columns(self, person: npt.NDArray[np.int64], time: npt.NDArray[np.int64]) -> Columns:
        """The columns of these people at these moments, both int64 [U]."""
        rows = [self._people[who] for who in person.tolist()]
        return {
            "age": [float(row["age"]) for row in rows],
            "gender": [row["gender"] for row in rows],
            "occupation": [row["occupation"] for row in rows],
            "history": histories_before(person, time, self._watched, self._history),
            "liked": histories_before(person, time, self._liked, self._history),
        }


def _impressions(
    ratings: Ratings,
    periods: npt.NDArray[np.int64],
    period: int,
    users: _Users,
    items: Columns,
    unwatched: int,
    rng: np.random.Generator,
) -> Impressions:
    rows = np.flatnonzero(periods == period)
    moments, user_row = np.unique(
        np.stack((ratings.person[rows], ratings.time[rows])), axis=1, return_inverse=True
    )
    person, time = moments
    watched_by_then: defaultdict[int, set[int]] = defaultdict(set)
    so_far = periods <= period
    for who, film in zip(ratings.person[so_far].tolist(), ratings.film[so_far], strict=True):
        watched_by_then[who].add(int(film))
    known = np.unique(ratings.film[so_far])
    sampled = _sample_unwatched(ratings.person[rows], known, watched_by_then, unwatched, rng)

    missing = np.full(sampled.size, np.nan, np.float32)
    all_rows = np.concatenate((user_row, np.repeat(user_row, unwatched)))
    watched = np.concatenate((np.ones(len(rows)), np.zeros(sampled.size)))
    # Rows of one impression lie together.
    order = np.argsort(all_rows, kind="stable")
    return Impressions(
        users=users.columns(person, time),
        contexts=_context_columns(time),
        items=items,
        user_row=all_rows[order],
        item_row=np.concatenate((ratings.film[rows], sampled.ravel()))[order],
        outcomes={
            "watched": watched.astype(np.float32)[order],
            "rating": np.concatenate((ratings.rating[rows], missing))[order],
        },
        groups=person[all_rows[order]],
    )


def _sample_unwatched(
    people: npt.NDArray[np.int64],
    known: npt.NDArray[np.int64],
    watched: dict[int, set[int]],
    count: int,
    rng: np.random.Generator,
) -> npt.NDArray[np.int64]:
    """`count` films for each person [N], of those known, that the person has not watched."""
    unseen = {
        who: known[~np.isin(known, np.fromiter(watched[who], np.int64))]
        for who in np.unique(people).tolist()
    }
    return np.stack([rng.choice(unseen[who], count) for who in people.tolist()])


def _ratings(
    events: list[dict[str, str]], people: list[dict[str, str]], films: list[dict[str, str]]
) -> Ratings:
    person_row = {person["user_id"]: row for row, person in enumerate(people)}
    film_row = {film["item_id"]: row for row, film in enumerate(films)}
    time = np.array([int(float(event["timestamp"])) for event in events], np.int64)
    order = np.argsort(time, kind="stable")
    return Ratings(
        person=np.array([person_row[event["user_id"]] for event in events], np.int64)[order],
        film=np.array([film_row[event["item_id"]] for event in events], np.int64)[order],
        rating=np.array([event["rating"] for event in events], np.float32)[order],
        time=time[order],
    )


def _item_columns(films: list[dict[str, str]]) -> dict[str, list[Any]]:
    return {
        "item_id": [film["item_id"] for film in films],
        "year": [
            float(f["release_year"]) if f["release_year"].isdigit() else UNKNOWN_YEAR for f in films
        ],
        "genres": [film["class"].split() for film in films],
    }


def _context_columns(time: npt.NDArray[np.int64]) -> Columns:
    moments = [dt.datetime.fromtimestamp(second, dt.UTC) for second in time.tolist()]
    return {
        "hour": [float(moment.hour) for moment in moments],
        "weekday": [moment.strftime("%A").lower() for moment in moments],
    }
