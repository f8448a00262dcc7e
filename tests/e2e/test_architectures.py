"""Every architecture is trained, exported, and answers through /rank of one service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bundle import store
from model_export import pipeline
from tests.architectures import ARCHITECTURES, experiment
from tests.e2e.asking import best_first
from tests.published import Expected
from tests.servers import Service

USER = "u5"
IDS = [f"i{number}" for number in (7, 3, 15, 22, 0, 19, 8)]
CONTEXT = {"hour": 20}

every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)


pytestmark = pytest.mark.timeout(600)  # the first to need the service publishes what is missing


class Published:
    """A model directory that architectures are published into when they are first asked for."""

    def __init__(self, directory: Path) -> None:
        self.models = directory / "models"
        self._runs = directory / "runs"

    def version(self, architecture: str) -> Path:
        """The version of an architecture: trained an epoch, exported, published.

        The export refuses what is not at parity with torch.
        """
        version = self.models / architecture / "1"
        if not version.exists():
            pipeline.run(experiment(architecture), self._runs, self.models)
        return version


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return Published(tmp_path_factory.mktemp("architectures"))


@pytest.fixture(scope="module")
def service(published: Published, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for all architectures, each a model of its own."""
    for architecture in ARCHITECTURES:
        published.version(architecture)
    running = Service(published.models, tmp_path_factory.mktemp("serve"), {})
    try:
        yield running.wait_ready(timeout_s=300)  # it has many versions to try
    finally:
        running.stop()


@every_architecture
def test_the_bundle_is_at_parity_with_torch(architecture: str, published: Published) -> None:
    manifest = store.load(published.version(architecture)).manifest
    assert manifest.family == experiment(architecture).architecture.family
    assert manifest.parity.rows == (1, 2, 257)
    assert manifest.parity.users == (1, 2, 5)
    assert 0 <= manifest.parity.max_abs_difference <= 1e-5


@every_architecture
def test_it_answers_through_rank(architecture: str, published: Published, service: Service) -> None:
    answer = service.rank(
        model=architecture, user={"id": USER}, context=CONTEXT, candidates={"ids": IDS}
    )
    expected = Expected(published.version(architecture)).scores(USER, IDS, CONTEXT)
    tasks = [task.name for task in experiment(architecture).tasks]
    fused = expected[:, 0].astype(np.float64) * expected[:, 1]
    order = best_first(fused)
    assert answer["model"] == {"name": architecture, "version": 1}
    assert answer["degraded"] is None
    assert [item["id"] for item in answer["items"]] == [IDS[row] for row in order]
    found = np.array([[item["tasks"][task] for task in tasks] for item in answer["items"]])
    np.testing.assert_allclose(found, expected[order], rtol=1e-5, atol=1e-5)


@every_architecture
def test_users_with_and_without_a_history_are_ranked(architecture: str, service: Service) -> None:
    features = {"age": 30, "segment": "s1"}
    scores = [
        service.rank(
            model=architecture,
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
    bundles = [store.load(published.version(name)) for name in ("mmoe_position", "mmoe")]
    position, plain = (bundle.manifest.features for bundle in bundles)
    assert position == plain
