"""One service for all tests that only ask: version 1 of `synthetic`, the settings' defaults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.published import Expected, ModelsDirectory
from tests.servers import Service


@pytest.fixture(scope="session")
def served_models(trained_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model directory of `service`: read it, leave it as it is."""
    directory = tmp_path_factory.mktemp("served") / "models"
    return ModelsDirectory.create(directory, trained_models).path


@pytest.fixture(scope="session")
def service(served_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service that many tests ask."""
    running = Service(served_models, tmp_path_factory.mktemp("serve"), {})
    try:
        yield running.wait_ready()
    finally:
        running.stop()


@pytest.fixture(scope="session")
def expected(served_models: Path) -> Expected:
    """What `service` should answer."""
    return Expected(served_models / "synthetic" / "1")
