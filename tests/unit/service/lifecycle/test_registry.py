"""The registry: which version is leased, when it closes, and what is tried again."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from bundle.manifest import Manifest
from bundle.store import load
from service.errors import NoActiveModel, UnknownModel
from service.lifecycle.bell import Bell
from service.lifecycle.board import Board
from service.lifecycle.follower import Follower
from service.lifecycle.formulas import Formulas
from service.lifecycle.gate import Gate, Refused
from service.lifecycle.registry import Model, Registry
from service.lifecycle.turn import Turn
from service.lifecycle.version import LoadedVersion, State
from service.metrics import Metrics
from service.worker import ALONE
from tests.unit.bundle.tiny import write_bundle
from tests.unit.service.scoring.fake_stages import until


class FakeGate:
    """Lets in what it is told to.

    Attributes:
        refused: (model, version) -> what is raised.
        admitted: (model, version) of every attempt, in order.
        open: attempts wait while it is clear.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self.refused: dict[tuple[str, int], Exception] = {}
        self.admitted: list[tuple[str, int]] = []
        self.open = threading.Event()
        self.open.set()

    def admit(
        self,
        models: Path,
        model: str,
        version: int,
        free_bytes: int | None,
        enter: Callable[[State], None],
    ) -> LoadedVersion:
        self.admitted.append((model, version))
        enter("loading")
        assert self.open.wait(10)
        if error := self.refused.get((model, version)):
            raise error
        manifest = self._manifest.model_copy(update={"model": model, "version": version})
        nothing = cast("Any", None)
        loaded = LoadedVersion(manifest, nothing, nothing, nothing, Formulas(), memory_bytes=100)
        if free_bytes is not None and free_bytes < loaded.memory_bytes:
            raise Refused("memory_budget", "no room")
        return loaded


class Bench:
    def __init__(self, directory: Path, manifest: Manifest, budget: int | None = None) -> None:
        self.directory = directory
        self.metrics = Metrics()
        self.gate = FakeGate(manifest)
        self.closed: list[int] = []
        self.registry = Registry(
            self.metrics, lambda closed: self.closed.append(closed.manifest.version)
        )
        gate = cast("Gate", self.gate)
        self.board = Board(ALONE, 0.002)
        self.follower = Follower(
            directory,
            self.registry,
            gate,
            0.002,
            budget,
            self.metrics,
            self.board,
            Bell(ALONE),
            Turn(ALONE),
        )

    def publish(self, version: int, model: str = "tiny") -> Path:
        path = self.directory / model / str(version)
        path.mkdir(parents=True)
        (path / "manifest.json").write_text("{}")
        return path

    def model(self, name: str = "tiny") -> Model | None:
        return next((each for each in self.registry.models if each.name == name), None)

    def live(self, name: str = "tiny") -> int | None:
        model = self.model(name)
        return model.live.manifest.version if model and model.live else None

    def state(self, version: int, name: str = "tiny") -> str | None:
        model = self.model(name)
        status = model.statuses.get(version) if model else None
        return status.state if status else None

    async def until_live(self, version: int, name: str = "tiny") -> None:
        await until(lambda: self.live(name) == version)

    async def looked(self) -> None:
        """Wait until the directory has been looked at anew, from `tiny` on."""
        name = f"z{len(self.registry.models)}"
        self.publish(1, name)
        await self.until_live(1, name)

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(
            f"multirank_{name}", {"model": "tiny"} | labels
        )


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return load(write_bundle(tmp_path_factory.mktemp("registry") / "tiny")).manifest


OnBench = Callable[[Callable[[Bench], Awaitable[None]]], None]


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


def test_the_newest_version_goes_live(on_bench: OnBench) -> None:
    async def test(bench: Bench) -> None:
        with pytest.raises(NoActiveModel, match="no model is published yet"), lease(bench):
            pass
        for version in (2, 10, 9):
            bench.publish(version)
        await bench.until_live(10)
        await bench.looked()
        assert ("tiny", 9) not in bench.gate.admitted
        assert ("tiny", 2) not in bench.gate.admitted
        bench.publish(11)
        await bench.until_live(11)
        bench.publish(5)
        await bench.looked()
        assert bench.live() == 11
        assert ("tiny", 5) not in bench.gate.admitted

    on_bench(test)


def lease(bench: Bench, name: str | None = None, version: int | None = None) -> Any:
    return bench.registry.lease(name, version)


def test_leases_are_counted_and_a_version_drains_before_it_closes(on_bench: OnBench) -> None:
    async def test(bench: Bench) -> None:
        bench.publish(1)
        await bench.until_live(1)
        first, second = lease(bench), lease(bench)
        with first as old:
            assert old.leases == 1
            assert bench.value("leases", version="1") == 1
            with second as same:
                assert same is old
                assert old.leases == 2
                bench.publish(2)
                await bench.until_live(2)
                assert bench.state(1) == "draining"
                assert bench.state(2) == "ready"
                with lease(bench) as new, lease(bench, "tiny", 1) as pinned:
                    assert new.manifest.version == 2
                    assert pinned is old  # still loaded, so it can still be asked for
                    assert bench.value("leases", version="2") == 1
                    assert old.leases == 3
            assert bench.state(1) == "draining"
            assert bench.value("version_state", version="1", state="draining") == 1
        assert bench.state(1) == "closed"
        assert bench.value("leases", version="1") is None
        assert bench.value("version_state", version="1", state="draining") is None
        assert bench.value("version_state", version="1", state="closed") == 1
        model = bench.model()
        assert model is not None
        assert list(model.loaded) == [2]
        with (
            pytest.raises(UnknownModel, match="tiny version 1 is not loaded; loaded: 2"),
            lease(bench, "tiny", 1),
        ):
            pass
        assert bench.value("swaps_total") == 2

    on_bench(test)


def test_a_version_nobody_holds_closes_at_the_swap(on_bench: OnBench) -> None:
    async def test(bench: Bench) -> None:
        bench.publish(1)
        await bench.until_live(1)
        with lease(bench):
            pass
        assert bench.state(1) == "ready"  # the live one stays, whoever leaves
        bench.publish(2)
        await bench.until_live(2)
        assert bench.state(1) == "closed"

    on_bench(test)


def test_a_failing_request_gives_its_lease_back(on_bench: OnBench) -> None:
    async def test(bench: Bench) -> None:
        bench.publish(1)
        await bench.until_live(1)
        with pytest.raises(ZeroDivisionError), lease(bench) as held:
            raise ZeroDivisionError
        assert held.leases == 0
        assert bench.value("leases", version="1") == 0

    on_bench(test)


def test_the_old_version_serves_while_the_new_one_loads(on_bench: OnBench) -> None:
    async def test(bench: Bench) -> None:
        bench.publish(1)
        await bench.until_live(1)
        bench.gate.open.clear()
        bench.publish(2)
        await until(lambda: bench.state(2) == "loading")
        with lease(bench) as held:
            assert held.manifest.version == 1
        with pytest.raises(UnknownModel, match="version 2 is not loaded"), lease(bench, "tiny", 2):
            pass
        assert bench.value("version_state", version="2", state="loading") == 1
        bench.gate.open.set()
        await bench.until_live(2)

    on_bench(test)


def test_which_model_is_meant(on_bench: OnBench) -> None:
    async def test(bench: Bench) -> None:
        bench.publish(1)
        await bench.until_live(1)
        with lease(bench) as only, lease(bench, "tiny") as named, lease(bench, None, 1) as pinned:
            assert only is named is pinned
        with (
            pytest.raises(UnknownModel, match="no model 'large'; served: tiny"),
            lease(bench, "large"),
        ):
            pass
        bench.publish(1, "other")
        await bench.until_live(1, "other")
        with pytest.raises(UnknownModel, match="name one of other, tiny"), lease(bench):
            pass
        with lease(bench, "other") as other:
            assert other.manifest.model == "other"

    on_bench(test)


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


def test_closed_versions_are_remembered_for_a_while(on_bench: OnBench) -> None:
    async def test(bench: Bench) -> None:
        for version in range(1, 10):
            bench.publish(version)
            await bench.until_live(version)
        model = bench.model()
        assert model is not None
        assert sorted(model.statuses) == [4, 5, 6, 7, 8, 9]
        assert bench.value("version_state", version="3", state="closed") is None

    on_bench(test)


def test_stopping_leaves_leases_good(on_bench: OnBench) -> None:
    async def test(bench: Bench) -> None:
        bench.publish(1)
        await bench.until_live(1)
        with lease(bench) as held:
            await bench.follower.stop()
            assert held.leases == 1
            with lease(bench) as other:
                assert other is held
        assert held.leases == 0

    on_bench(test)
