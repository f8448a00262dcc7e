"""What tests of the registry share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from bundle.manifest import Manifest
from bundle.store import load
from tests.unit.bundle.tiny import write_bundle
from tests.unit.service.lifecycle.registry_bench import Bench, OnBench


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return load(write_bundle(tmp_path_factory.mktemp("registry") / "tiny")).manifest


@pytest.fixture
def on_bench(tmp_path: Path, manifest: Manifest) -> OnBench:
    def run(test: Callable[[Bench], Awaitable[None]]) -> None:
        async def started() -> None:
            bench = Bench(tmp_path / "models", manifest)
            bench.follower.start()
            try:
                await asyncio.wait_for(cast("Any", test(bench)), 20)
            finally:
                bench.gate.open.set()
                await bench.follower.stop()

        asyncio.run(started())

    return run
