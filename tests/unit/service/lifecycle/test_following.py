"""Following a directory that fails: what is loaded goes on, and it is said, once."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.lifecycle import follower
from tests.unit.service.lifecycle.registry_bench import Bench, OnBench
from tests.unit.service.scoring.fake_stages import until


def test_a_directory_that_cannot_be_listed(
    on_bench: OnBench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looks: list[Path] = []

    def fail(directory: Path) -> list[str]:
        looks.append(directory)
        raise OSError("stale file handle")

    async def test(bench: Bench) -> None:
        bench.publish(1)
        await bench.until_live(1)
        monkeypatch.setattr(follower, "model_names", fail)
        await until(lambda: len(looks) > 5)
        model = bench.model()
        assert model is not None
        assert str(bench.directory / "tiny") in (model.problem or "")
        assert bench.value("model_problem") == 1
        assert bench.live() == 1
        assert caplog.text.count("OSError: stale file handle") == 1

        monkeypatch.undo()
        bench.publish(2)
        await bench.until_live(2)
        assert model.problem is None

    on_bench(test)
