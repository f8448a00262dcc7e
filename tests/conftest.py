"""What many tests need: a real Redis, published models, and the service as a real process.

`make test` runs the suite in several processes, a file in one of them. Ports, servers and temporary
directories are each process's own; only `trained_models` is made once for all of them.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import HealthCheck, settings

from tests.published import ModelsDirectory
from tests.servers import Redis, Service

ROOT = Path(__file__).parent.parent

os.environ["OMP_NUM_THREADS"] = "1"  # for these small networks more would only wait for each other

# How long an example takes says how busy the machine is.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


class Serve(Protocol):
    """Starts a service; it is stopped, and its log checked, when the test ends."""

    def __call__(self, models: Path, *, ready: bool = True, **settings: object) -> Service: ...


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A directory that the first process to need it makes, and all processes of the run read."""
    shared = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    directory = shared / name
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.exists():
            unfinished = Path(tempfile.mkdtemp(dir=shared))
            make(unfinished)
            unfinished.rename(directory)
    return directory


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
    """A model directory with `synthetic` in two versions of different weights, and its formula.

    Read it, leave it as it is.
    """
    return made_once(tmp_path_factory, "trained", _train_synthetic) / "models"


def _train_synthetic(directory: Path) -> None:
    from model_export import config, pipeline

    synthetic = config.load(ROOT / "examples" / "synthetic.yaml")
    training = synthetic.training.model_copy(update={"epochs": 2})
    for seed in (1, 2):
        changed = synthetic.model_copy(update={"seed": seed, "training": training})
        pipeline.run(changed, directory / f"runs-{seed}", directory / "models")


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
