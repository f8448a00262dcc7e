"""A seeded synthetic feed with known structure, for tests and for demos without a download.

People and items have latent vectors. A behaviour's affinity is the product of the person's vector
with the item's vector for that behaviour, and the item vectors of any two behaviours have the
correlation `task_correlation` (after the synthetic data of Ma et al., KDD 2018, section 3.1):

    click          Bernoulli(sigmoid(bias_i + 2 affinity - 0.6 log_price_i + evening_i is_evening
                                     - position_bias log(1 + position)))
    like           Bernoulli(sigmoid(2 affinity' + 0.5)), only where clicked
    watch_seconds  30 exp(affinity'' / 2 + noise), only where clicked

A person's vector shows in `segment` and in what was clicked before, an item's in `categories`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from model_export.data.history import histories_before
from model_export.data.impressions import Columns, EntitySample, Feed, Impressions
from model_export.data.split import TimeSplit

_LATENT_WIDTH = 4
_BEHAVIOURS = ("click", "like", "watch_seconds")
_SEGMENTS = 8
_HOUR_MS = 3_600_000

Floats = npt.NDArray[np.float64]


class SyntheticOptions(BaseModel):
    """Sizes and structure of the synthetic feed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    loader: Literal["synthetic"]
    seed: int = 0
    users: Annotated[int, Field(ge=1)] = 300
    items: Annotated[int, Field(ge=2)] = 200
    impressions: Annotated[int, Field(ge=10)] = 3000
    candidates: Annotated[int, Field(ge=1)] = 8
    history: Annotated[int, Field(ge=1)] = 10
    task_correlation: Annotated[float, Field(ge=0, le=1)] = 0.5
    position_bias: Annotated[float, Field(ge=0, le=10)] = 0.0
    split: TimeSplit = TimeSplit()


def load(options: SyntheticOptions) -> Feed[Impressions]:
    """Generate the feed; the same options give the same feed."""
    rng = np.random.default_rng(options.seed)
    people = _people(rng, options.users)
    catalogue = _catalogue(rng, options.items, options.task_correlation)
    events = _events(rng, options, people, catalogue)
    periods = options.split.periods(events.time)
    parts = [
        _part(people, catalogue, events, np.flatnonzero(periods == period), options.history)
        for period in range(3)
    ]
    end = np.full(options.users, events.time.max() + 1)
    everyone = np.arange(options.users)
    user_table = {
        "user_id": _ids("u", everyone),
        **_user_columns(people, events, everyone, end, options.history),
    }
    item_table = {**catalogue.columns, "title": [f"Item {i}" for i in range(options.items)]}
    return Feed(
        description=f"synthetic feed (seed {options.seed}, correlation {options.task_correlation})",
        train=parts[0],
        validation=parts[1],
        test=parts[2],
        users=EntitySample("user", pa.table(user_table), key="user_id"),
        items=EntitySample("item", pa.table(item_table), key="item_id", display=("title",)),
    )


@dataclass(frozen=True)
class _People:
    vectors: Floats
    ages: Floats
    segments: npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Catalogue:
    vectors: dict[str, Floats]
    bias: Floats
    log_price: Floats
    evening: Floats
    columns: Columns


@dataclass(frozen=True)
class _Events:
    """Impressions [U] and the outcomes of their candidates [U, C]."""

    person: npt.NDArray[np.int64]
    time: npt.NDArray[np.int64]
    hour: npt.NDArray[np.int64]
    items: npt.NDArray[np.int64]
    outcomes: dict[str, Floats]


def _people(rng: np.random.Generator, count: int) -> _People:
    centres = rng.normal(size=(_SEGMENTS, _LATENT_WIDTH))
    segments = rng.integers(_SEGMENTS, size=count)
    vectors = 0.8 * centres[segments] + 0.6 * rng.normal(size=(count, _LATENT_WIDTH))
    return _People(vectors, rng.integers(16, 80, size=count).astype(float), segments)


def _catalogue(rng: np.random.Generator, count: int, correlation: float) -> _Catalogue:
    common = rng.normal(size=(count, _LATENT_WIDTH))
    own = {name: rng.normal(size=(count, _LATENT_WIDTH)) for name in _BEHAVIOURS}
    vectors = {
        name: np.sqrt(correlation) * common + np.sqrt(1 - correlation) * vector
        for name, vector in own.items()
    }
    price = np.round(rng.lognormal(mean=2.0, sigma=0.7, size=count), 2)
    strongest = np.argmax(np.abs(vectors["click"]), axis=1)
    positive = vectors["click"][np.arange(count), strongest] > 0
    categories = [
        [f"axis-{axis}-{'up' if up else 'down'}"]
        for axis, up in zip(strongest.tolist(), positive.tolist(), strict=True)
    ]
    return _Catalogue(
        vectors=vectors,
        bias=rng.normal(-0.5, 0.7, size=count),
        log_price=(np.log(price) - 2.0) / 0.7,
        evening=rng.normal(0, 0.7, size=count),
        columns={
            "item_id": _ids("i", np.arange(count)),
            "price": price.tolist(),
            "categories": categories,
        },
    )


def _events(
    rng: np.random.Generator, options: SyntheticOptions, people: _People, catalogue: _Catalogue
) -> _Events:
    count, candidates = options.impressions, min(options.candidates, options.items)
    person = rng.integers(options.users, size=count)
    hour = np.sort(rng.integers(24 * 60, size=count))  # hours since the start, over sixty days
    time = hour * _HOUR_MS + rng.integers(_HOUR_MS, size=count)
    items = np.stack([rng.choice(options.items, candidates, replace=False) for _ in range(count)])
    affinity = {
        name: np.einsum("ud,ucd->uc", people.vectors[person], vectors[items]) / _LATENT_WIDTH**0.5
        for name, vectors in catalogue.vectors.items()
    }
    is_evening = ((hour % 24) >= 18)[:, None]
    click_logit = (
        catalogue.bias[items]
        + 2 * affinity["click"]
        - 0.6 * catalogue.log_price[items]
        + catalogue.evening[items] * is_evening
        - options.position_bias * np.log1p(np.arange(candidates))
    )
    click = rng.random(items.shape) < _sigmoid(click_logit)
    like = rng.random(items.shape) < _sigmoid(2 * affinity["like"] + 0.5)
    noise = rng.normal(scale=0.3, size=items.shape)
    seconds = 30 * np.exp(np.clip(affinity["watch_seconds"] / 2 + noise, -3, 3))
    return _Events(
        person=person,
        time=time,
        hour=hour % 24,
        items=items,
        outcomes={
            "click": click.astype(float),
            "like": np.where(click, like, np.nan),
            "watch_seconds": np.where(click, seconds, np.nan),
        },
    )


def _part(
    people: _People,
    catalogue: _Catalogue,
    events: _Events,
    impressions: npt.NDArray[np.int64],
    history: int,
) -> Impressions:
    person, time = events.person[impressions], events.time[impressions]
    candidates = events.items.shape[1]
    return Impressions(
        users=_user_columns(people, events, person, time, history),
        contexts={"hour": events.hour[impressions].tolist()},
        items=catalogue.columns,
        user_row=np.repeat(np.arange(len(impressions)), candidates),
        item_row=events.items[impressions].ravel(),
        outcomes={
            name: outcome[impressions].ravel().astype(np.float32)
            for name, outcome in events.outcomes.items()
        },
        groups=np.repeat(person, candidates),
        positions=np.tile(np.arange(candidates), len(impressions)),
    )


def _user_columns(
    people: _People,
    events: _Events,
    person: npt.NDArray[np.int64],
    time: npt.NDArray[np.int64],
    history: int,
) -> Columns:
    rows, slots = np.nonzero(events.outcomes["click"])
    clicked = zip(
        events.person[rows].tolist(),
        events.time[rows].tolist(),
        _ids("i", events.items[rows, slots]),
        strict=True,
    )
    return {
        "age": people.ages[person].tolist(),
        "segment": _ids("s", people.segments[person]),
        "history": histories_before(person, time, list(clicked), history),
    }


def _ids(prefix: str, numbers: npt.NDArray[np.int64]) -> list[str]:
    return [f"{prefix}{number}" for number in numbers.tolist()]


def _sigmoid(logit: Floats) -> Floats:
    result: Floats = 1 / (1 + np.exp(-logit))
    return result
