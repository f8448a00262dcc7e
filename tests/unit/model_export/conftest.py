"""A tiny experiment, its run and its bundle, for the tests that only look at them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from model_export import config, pipeline
from model_export.config import Config
from tests.unit.model_export import experiments


@pytest.fixture(scope="package")
def tiny_config() -> Config:
    return config.parse(experiments.tiny(), "tiny")


@pytest.fixture(scope="package")
def tiny_run(tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run directory of the tiny experiment, not to be changed."""
    return pipeline.train(tiny_config, tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="package")
def exported_run(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run with its bundle, not to be changed."""
    directory = tmp_path_factory.mktemp("exported") / "tiny"
    shutil.copytree(tiny_run, directory)
    pipeline.export(directory)
    return directory
