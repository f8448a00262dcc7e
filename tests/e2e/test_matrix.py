"""Every architecture under every weighting method: trained, exported, and asked through /rank.

All pairs are trained for an epoch. Exports take seconds and a method leaves nothing in a graph but
weights: `test_architectures.py` has exported and asked every architecture, so here each further
method is, once, on architectures in turn. `make matrix` exports and asks all pairs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

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
from tests.published import Expected
from tests.servers import Service, eventually

METHODS = ("static", "uncertainty", "gradnorm", "dwa", "mgda", "pcgrad")
PAIRS = [(name, method) for name in ARCHITECTURES for method in METHODS]
COVERING = list(zip(("esmm", "ple", "aitm", "snr_trans", "mmoe_din"), METHODS[1:], strict=True))
EXPORTED = PAIRS if os.environ.get("MULTIRANK_MATRIX") == "full" else COVERING


pytestmark = pytest.mark.timeout(600)  # an export on a busy machine takes its time


def experiment(architecture: str, method: str) -> Config:
    name = f"{architecture}-{method}"
    return architectures.experiment(
        architecture, name=name, model=name, weighting={"method": method}
    )


@pytest.fixture(scope="module")
def prepared() -> dict[tuple[str, ...], Prepared]:
    """Encoded data by task names, filled by the first test that needs it."""
    return {}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_epoch_moves_the_network_and_leaves_it_finite(
    architecture: str, method: str, prepared: dict[tuple[str, ...], Prepared]
) -> None:
    loaded = experiment(architecture, method)
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


class Served(NamedTuple):
    """A service, and the model directory that it serves."""

    service: Service
    models: Path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One service, that the tests publish their models to."""
    models = tmp_path_factory.mktemp("matrix") / "models"
    models.mkdir()
    service = Service(models, tmp_path_factory.mktemp("serve"), {})
    try:
        yield Served(service, models)
    finally:
        service.stop()


@pytest.mark.parametrize(("architecture", "method"), EXPORTED)
def test_it_passes_parity_and_answers_through_rank(
    architecture: str, method: str, served: Served, tmp_path: Path
) -> None:
    loaded = experiment(architecture, method)
    directory = pipeline.run(loaded, tmp_path / "runs", served.models)
    parity = store.load(directory).manifest.parity
    assert parity.max_abs_difference <= 1e-5
    assert (parity.rows, parity.users) == ((1, 2, 257), (1, 2, 5))
    expected = Expected(directory)
    user, items = expected.ids("user")[3], expected.ids("item")[:7]
    asked: dict[str, Any] = {
        "model": loaded.model,
        "user": {"id": user},
        "context": {"hour": 20},
        "candidates": {"ids": items},
    }
    eventually(lambda: served.service.http.post("/rank", json=asked).status_code == 200)
    answer = served.service.rank(**asked)
    assert answer["degraded"] is None
    scores = expected.scores(user, items, {"hour": 20})
    tasks = {item["id"]: list(item["tasks"].values()) for item in answer["items"]}
    found = np.array([tasks[item] for item in items])
    np.testing.assert_allclose(found, scores, rtol=1e-4, atol=1e-5)
