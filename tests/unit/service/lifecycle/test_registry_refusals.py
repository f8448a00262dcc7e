"""Versions that are refused, and what is loaded or tried again."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from service.errors import NoActiveModel
from service.lifecycle import plan
from service.lifecycle.refusal import Refused
from tests.unit.service.lifecycle.registry_bench import Bench, OnBench, lease
from tests.unit.service.scoring.fake_stages import until


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Refused("golden_mismatch", "scores of like are off"), "golden_mismatch"),
        (ZeroDivisionError("a surprise"), "load_failed"),
    ],
)
def test_a_refused_version_leaves_the_old_one_live(
    on_bench: OnBench, error: Exception, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(bench: Bench) -> None:
        bench.publish(1)
        await bench.until_live(1)
        bench.gate.refused["tiny", 2] = error
        bench.publish(2)
        await until(lambda: bench.state(2) == "refused")
        assert bench.live() == 1
        assert bench.state(1) == "ready"
        model = bench.model()
        assert model is not None
        assert model.statuses[2].reason == f"{reason}: {error}"
        assert bench.value("versions_refused_total", reason=reason) == 1
        assert f"tiny version 2 refused: {reason}: {error} (version 1 stays)" in caplog.text

    with caplog.at_level(logging.INFO):
        on_bench(test)


def test_an_older_version_serves_when_the_newest_is_refused(on_bench: OnBench) -> None:
    async def test(bench: Bench) -> None:
        for version in (2, 3):
            bench.gate.refused["tiny", version] = Refused("digest_mismatch", "no")
        for version in (1, 2, 3):
            bench.publish(version)
        await bench.until_live(1)
        assert bench.gate.admitted == [("tiny", 3), ("tiny", 2), ("tiny", 1)]
        assert (bench.state(3), bench.state(2), bench.state(1)) == ("refused", "refused", "ready")

    on_bench(test)


def test_no_version_is_let_in(on_bench: OnBench) -> None:
    async def test(bench: Bench) -> None:
        bench.gate.refused["tiny", 1] = Refused("digest_mismatch", "no")
        bench.publish(1)
        await until(lambda: bench.state(1) == "refused")
        for name in (None, "tiny"):
            with (
                pytest.raises(NoActiveModel, match="tiny: no version is ready"),
                lease(bench, name),
            ):
                pass

    on_bench(test)


def touch(path: Path) -> None:
    stat = (path / "manifest.json").stat()
    os.utime(path / "manifest.json", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))


@pytest.mark.parametrize(
    "change",
    [
        touch,
        lambda path: (path / "manifest.json").write_text("{ }"),
        lambda path: (path / "more.onnx").touch(),
        lambda path: (path / "manifest.json").unlink(),
    ],
)
def test_a_refused_version_is_tried_again_only_when_its_files_change(
    on_bench: OnBench, change: Callable[[Path], object]
) -> None:
    async def test(bench: Bench) -> None:
        bench.gate.refused["tiny", 1] = Refused("digest_mismatch", "no")
        path = bench.publish(1)
        await until(lambda: bench.state(1) == "refused")
        for _ in range(3):
            await bench.looked()
        assert bench.gate.admitted.count(("tiny", 1)) == 1
        change(path)
        await until(lambda: bench.gate.admitted.count(("tiny", 1)) == 2)
        del bench.gate.refused["tiny", 1]
        (path / "mended.onnx").touch()
        await bench.until_live(1)

    on_bench(test)


def test_a_live_version_is_not_loaded_again(on_bench: OnBench) -> None:
    async def test(bench: Bench) -> None:
        path = bench.publish(1)
        await bench.until_live(1)
        (path / "more").touch()
        await bench.looked()
        shutil.rmtree(path)
        await bench.looked()
        assert bench.gate.admitted.count(("tiny", 1)) == 1
        assert bench.live() == 1

    on_bench(test)


def test_new_formulas_need_no_new_version(
    on_bench: OnBench, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(bench: Bench) -> None:
        bench.publish(1)
        await bench.until_live(1)
        fusions = bench.directory / "tiny" / "fusions"
        fusions.mkdir()

        def formulas() -> dict[str, str]:
            with lease(bench, "tiny") as held:
                return {name: fusion.version for name, fusion in held.formulas.fusions.items()}

        (fusions / "default.yaml").write_text("formula: click\n")
        await until(lambda: list(formulas()) == ["default"])
        first = formulas()
        (fusions / "default.yaml").write_text("formula: click + like\n")
        await until(lambda: formulas() != first)
        second = formulas()
        (fusions / "default.yaml").write_text("formula: click + no_such_task\n")
        await until(lambda: "fusion default refused" in caplog.text)
        assert "unknown name 'no_such_task'" in caplog.text
        assert formulas() == second
        (fusions / "default.yaml").write_text("formula: click\n")
        await until(lambda: formulas() == first)
        assert bench.gate.admitted == [("tiny", 1)]

    with caplog.at_level(logging.INFO):
        on_bench(test)


def test_a_broken_link_in_a_version_keeps_nothing_else_from_loading(on_bench: OnBench) -> None:
    async def test(bench: Bench) -> None:
        bench.publish(1, "a")
        (bench.publish(2, "a") / "weights").symlink_to("/nowhere")
        bench.gate.refused["a", 2] = Refused("file_unsafe", "weights")
        bench.publish(1)
        await asyncio.wait_for(bench.until_live(1), 1)
        assert bench.live("a") == 1

    on_bench(test)


def test_a_version_whose_rows_the_store_lacks_is_judged_again(
    on_bench: OnBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(bench: Bench) -> None:
        bench.publish(1)
        await bench.until_live(1)
        bench.gate.refused["tiny", 2] = Refused("features_unknown", "0 of 40")
        bench.publish(2)
        await until(lambda: bench.gate.admitted.count(("tiny", 2)) > 2)
        assert bench.follower.refused("tiny", 2) is None
        assert bench.live() == 1
        del bench.gate.refused["tiny", 2]
        await bench.until_live(2)

    monkeypatch.setattr(plan, "_AGAIN_S", 0.01)
    on_bench(test)
