"""Every architecture under every weighting method: trained, exported, and asked through /rank.

All pairs are trained for an epoch. Exports take seconds and a method leaves nothing in a graph but
weights, so each architecture is exported and asked under one method, the methods taking turns.
`make matrix` exports and asks all pairs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from rich.console import Console

from bundle import store
from model_export import pipeline
from model_export.config import Config
from model_export.pipeline import Prepared
from model_export.training import trainer
from tests import architectures
from tests.architectures import ARCHITECTURES
from tests.e2e.asking import best_first
from tests.published import Expected
from tests.servers import Service

USER = "u5"
IDS = [f"i{number}" for number in (7, 3, 15, 22, 0, 19, 8)]
CONTEXT = {"hour": 20}


class Pair(NamedTuple):
    """An architecture under a method; `name` is that of its model."""

    architecture: str
    method: str

    @property
    def name(self) -> str:
        return f"{self.architecture}-{self.method}"

    @property
    def config(self) -> Config:
        weighting = {"method": self.method}
        names = {"name": self.name, "model": self.name}
        return architectures.experiment(self.architecture, **names, weighting=weighting)


METHODS = ("static", "uncertainty", "gradnorm", "dwa", "mgda", "pcgrad")
PAIRS = [Pair(architecture, method) for architecture in ARCHITECTURES for method in METHODS]
IN_TURN = [
    Pair(architecture, METHODS[place % len(METHODS)])
    for place, architecture in enumerate(ARCHITECTURES)
]
EXPORTED = PAIRS if os.environ.get("MULTIRANK_MATRIX") == "full" else IN_TURN

every_pair = pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
every_exported = pytest.mark.parametrize("pair", EXPORTED, ids=lambda pair: pair.name)

pytestmark = pytest.mark.timeout(1800)  # the first to need the service publishes what is missing


@pytest.fixture(scope="module")
def prepared() -> dict[tuple[str, ...], Prepared]:
    """Encoded data by task names, filled by the first test that needs it."""
    return {}


@every_pair
def test_an_epoch_moves_the_network_and_leaves_it_finite(
    pair: Pair, prepared: dict[tuple[str, ...], Prepared]
) -> None:
    loaded = pair.config
    names = tuple(task.name for task in loaded.tasks)
    if names not in prepared:
        prepared[names] = pipeline.prepare(loaded)
    data = prepared[names]
    with torch.random.fork_rng():
        model = pipeline.new_model(loaded, data, torch.device("cpu"))
        before = {name: parameter.clone() for name, parameter in model.named_parameters()}
        quiet = Console(quiet=True)
        (epoch,) = trainer.train(model, loaded, data.train, data.validation, quiet)
    trained = np.array(model.trained)
    weights = np.array(list(epoch.weights.values()))
    assert (weights[~trained] == 0).all()
    assert (weights[trained] >= 0).all()
    assert weights.sum() > 0
    assert np.isfinite(list(epoch.losses.values())).all()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter).all(), name
    moved = [n for n, p in model.named_parameters() if not torch.equal(before[n], p)]
    assert any("embeddings" in name for name in moved)
    assert any("towers" in name for name in moved)


class Published:
    """A model directory that pairs are published into when they are first asked for."""

    def __init__(self, directory: Path) -> None:
        self.models = directory / "models"
        self._runs = directory / "runs"

    def version(self, pair: Pair) -> Path:
        """The version of a pair: trained an epoch, exported, published.

        The export refuses what is not at parity with torch.
        """
        version = self.models / pair.name / "1"
        if not version.exists():
            pipeline.run(pair.config, self._runs, self.models)
        return version


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return Published(tmp_path_factory.mktemp("matrix"))


@pytest.fixture(scope="module")
def service(published: Published, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for all pairs, each a model of its own."""
    for pair in EXPORTED:
        published.version(pair)
    running = Service(published.models, tmp_path_factory.mktemp("serve"), {})
    try:
        yield running.wait_ready(timeout_s=600)  # it has many versions to try
    finally:
        running.stop()


@every_exported
def test_the_bundle_is_at_parity_with_torch(pair: Pair, published: Published) -> None:
    manifest = store.load(published.version(pair)).manifest
    assert manifest.family == pair.config.architecture.family
    assert manifest.parity.rows == (1, 2, 257)
    assert manifest.parity.users == (1, 2, 5)
    assert 0 <= manifest.parity.max_abs_difference <= 1e-5


@every_exported
def test_it_answers_through_rank(pair: Pair, published: Published, service: Service) -> None:
    answer = service.rank(
        model=pair.name, user={"id": USER}, context=CONTEXT, candidates={"ids": IDS}
    )
    expected = Expected(published.version(pair)).scores(USER, IDS, CONTEXT)
    tasks = [task.name for task in pair.config.tasks]
    fused = expected[:, 0].astype(np.float64) * expected[:, 1]
    order = best_first(fused)
    assert answer["model"] == {"name": pair.name, "version": 1}
    assert answer["degraded"] is None
    assert [item["id"] for item in answer["items"]] == [IDS[row] for row in order]
    found = np.array([[item["tasks"][task] for task in tasks] for item in answer["items"]])
    np.testing.assert_allclose(found, expected[order], rtol=1e-5, atol=1e-5)


@every_exported
def test_users_with_and_without_a_history_are_ranked(pair: Pair, service: Service) -> None:
    features = {"age": 30, "segment": "s1"}
    scores = [
        service.rank(
            model=pair.name,
            user={"features": {**features, "history": history}},
            context=CONTEXT,
            candidates={"ids": IDS},
            format="columns",
        )["scores"]
        for history in ([], ["i3"], ["i3", "i7", "i8", "i9", "i10"])
    ]
    assert np.isfinite(scores).all()
    assert not np.allclose(scores[0], scores[1], rtol=1e-6)


def test_a_bundle_does_not_ask_for_the_position(published: Published) -> None:
    biased, plain = (
        store.load(published.version(next(pair for pair in EXPORTED if pair.architecture == name)))
        for name in ("mmoe_position", "mmoe")
    )
    assert biased.manifest.features == plain.manifest.features
