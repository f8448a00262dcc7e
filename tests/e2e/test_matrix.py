"""Every architecture under every weighting method: trained, exported, and asked through /rank.

All pairs are trained for an epoch. A bundle is exported, published and asked for a covering part of
them: each architecture once and each method several times, since the weights are all that a method
leaves in a graph. `make matrix` exports and asks all pairs.
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
from model_export import config, pipeline
from model_export.config import Config
from model_export.pipeline import Prepared
from model_export.training import trainer
from tests.published import Expected
from tests.servers import Service, eventually
from tests.unit.model_export import experiments, networks

METHODS = ("static", "uncertainty", "gradnorm", "dwa", "mgda", "pcgrad")
_OTHER_SIZES = {"shared_bottom_no_tower", "mmoe_one_layer", "ple_three_levels"}
ARCHITECTURES = {name: of for name, of in networks.FAMILIES.items() if name not in _OTHER_SIZES}
PAIRS = [(name, method) for name in ARCHITECTURES for method in METHODS]
COVERING = [(name, METHODS[at % len(METHODS)]) for at, name in enumerate(ARCHITECTURES)]
EXPORTED = PAIRS if os.environ.get("MULTIRANK_MATRIX") == "full" else COVERING

_ENTIRE_SPACE_TASKS = [
    {"name": "click", "kind": "binary"},
    {"name": "like", "kind": "binary", "where": "click"},
    {
        "name": "click_and_like",
        "kind": "binary",
        "label": "like",
        "where": "click",
        "entire_space": True,
    },
]


def experiment(name: str, method: str) -> Config:
    """One epoch on the tiny synthetic feed."""
    architecture = {"embedding_width": 4, "tower_layers": [4], **ARCHITECTURES[name]}
    of_tasks = {"tasks": _ENTIRE_SPACE_TASKS} if architecture["family"] == "esmm" else {}
    content = experiments.tiny(
        name=f"{name}-{method}",
        model=f"{name}-{method}",
        architecture=architecture,
        weighting={"method": method},
        training={"epochs": 1, "batch_rows": 320, "learning_rate": 0.01},
        fusion={"formula": "click * like", "owner": "tests"},
        **of_tasks,
    )
    return config.parse(content, f"{name}-{method}")


@pytest.fixture(scope="module")
def prepared() -> dict[tuple[Any, ...], Prepared]:
    """Encoded data, by tasks: the same for all architectures."""
    return {}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_epoch_moves_the_network_and_leaves_it_finite(
    name: str, method: str, prepared: dict[tuple[Any, ...], Prepared]
) -> None:
    loaded = experiment(name, method)
    key = tuple(task.name for task in loaded.tasks)
    if key not in prepared:
        prepared[key] = pipeline.prepare(loaded)
    data = prepared[key]
    with torch.random.fork_rng():
        model = pipeline.new_model(loaded, data, torch.device("cpu"))
        before = {n: p.clone() for n, p in model.named_parameters()}
        quiet = Console(quiet=True)
        (epoch,) = trainer.train(model, loaded, data.train, data.validation, quiet)
    trained = np.array(model.trained)
    weights = np.array(list(epoch.weights.values()))
    assert (weights[~trained] == 0).all()
    assert (weights[trained] >= 0).all()
    assert weights.sum() > 0
    assert all(np.isfinite(loss) for loss in epoch.losses.values())
    moved = {n for n, p in model.named_parameters() if not torch.equal(before[n], p)}
    assert any(n.startswith("embeddings") or ".embeddings" in n for n in moved)
    assert all(torch.isfinite(p).all() for p in model.parameters())


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


@pytest.mark.parametrize(("name", "method"), EXPORTED)
def test_it_passes_parity_and_answers_through_rank(
    name: str, method: str, served: Served, tmp_path: Path
) -> None:
    directory = pipeline.run(experiment(name, method), tmp_path / "runs", served.models)
    parity = store.load(directory).manifest.parity
    assert parity.max_abs_difference <= 1e-5
    assert (parity.rows, parity.users) == ((1, 2, 257), (1, 2, 5))
    expected = Expected(directory)
    user, items = expected.ids("user")[3], expected.ids("item")[:7]
    asked = {
        "model": f"{name}-{method}",
        "user": {"id": user},
        "context": {"hour": 20},
        "candidates": {"ids": items},
    }
    client = served.service.http
    eventually(lambda: client.post("/rank", json=asked).status_code == 200)
    answer = served.service.rank(**asked)
    assert answer["degraded"] is None
    scores = expected.scores(user, items, {"hour": 20})
    by_id = {item["id"]: item["tasks"] for item in answer["items"]}
    assert len(by_id) == 7
    for row, item in enumerate(items):
        found = list(by_id[item].values())
        np.testing.assert_allclose(found, scores[row], rtol=1e-4, atol=1e-5)
