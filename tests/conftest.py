"""What many tests need: a real Redis, published models, and the service as a real process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from tests.published import ModelsDirectory
from tests.servers import Redis, Service

ROOT = Path(__file__).parent.parent


class Serve(Protocol):
    """Starts a service; it is stopped, and its log checked, when the test ends."""

    def __call__(self, models: Path, *, ready: bool = True, **settings: object) -> Service: ...


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis for all tests that do not mind company: keys are theirs to tell apart."""
    with Redis(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[Redis]:
    """A Redis of the test's own, to be looked into, stopped and started."""
    directory = tmp_path / "redis"
    directory.mkdir()
    with Redis(directory) as server:
        yield server


@pytest.fixture(scope="session")
def trained_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory with `synthetic` in two versions of different weights, and its formula."""
    from model_export import config, pipeline

    directory = tmp_path_factory.mktemp("trained")
    synthetic = config.load(ROOT / "examples" / "synthetic.yaml")
    training = synthetic.training.model_copy(update={"epochs": 2})
    for seed in (1, 2):
        changed = synthetic.model_copy(update={"seed": seed, "training": training})
        pipeline.run(changed, directory / f"runs-{seed}", directory / "models")
    return directory / "models"


@pytest.fixture(scope="session")
def movielens_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory with the demo's model, trained for one epoch only."""
    from model_export import config, pipeline

    directory = tmp_path_factory.mktemp("movielens")
    demo = config.load(ROOT / "examples" / "movielens.yaml")
    training = demo.training.model_copy(update={"epochs": 1})
    data = demo.data.model_copy(update={"cache": ROOT / ".data"})
    changed = demo.model_copy(update={"training": training, "data": data})
    pipeline.run(changed, directory / "runs", directory / "models")
    return directory / "models"


@pytest.fixture
def models_dir(trained_models: Path, tmp_path: Path) -> ModelsDirectory:
    """A model directory of the test's own, with version 1 of `synthetic` in it."""
    return ModelsDirectory.create(tmp_path / "models", trained_models)


@pytest.fixture
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Start services; a failing stop of one does not keep the others."""
    with ExitStack() as started:

        def start(models: Path, *, ready: bool = True, **settings: object) -> Service:
            service = Service(models, tmp_path_factory.mktemp("serve"), settings)
            started.callback(service.stop)
            return service.wait_ready() if ready else service

        yield start
