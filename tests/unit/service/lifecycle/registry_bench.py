"""A registry and its follower over a gate that lets in what it is told to."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from bundle.manifest import Manifest
from service.lifecycle.bell import Bell
from service.lifecycle.board import Board
from service.lifecycle.follower import Follower
from service.lifecycle.formulas import Formulas
from service.lifecycle.gate import Gate
from service.lifecycle.loader import Loader
from service.lifecycle.pace import Pace
from service.lifecycle.plan import Plan
from service.lifecycle.refusal import Refused
from service.lifecycle.registry import Model, Registry
from service.lifecycle.turn import Turn
from service.lifecycle.version import LoadedVersion, State
from service.metrics import Metrics
from service.scoring.tensor_memory import TensorMemory
from service.worker import ALONE
from tests.unit.service.scoring.fake_stages import until


class FakeGate:
    """Lets in what it is told to.

    Attributes:
        refused: (model, version) -> what is raised.
        admitted: (model, version) of every attempt, in order.
        open: attempts wait while it is clear.
        items: whose tensors were asked for, in parts.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self.refused: dict[tuple[str, int], Exception] = {}
        self.admitted: list[tuple[str, int]] = []
        self.items: list[Any] = []
        self.tensors = TensorMemory()
        self.open = threading.Event()
        self.open.set()

    def admit(
        self,
        models: Path,
        model: str,
        version: int,
        free_bytes: int | None,
        enter: Callable[[State], None],
        pace: Pace,
    ) -> LoadedVersion:
        self.admitted.append((model, version))
        enter("loading")
        assert self.open.wait(10)
        if error := self.refused.get((model, version)):
            raise error
        manifest = self._manifest.model_copy(update={"model": model, "version": version})
        nothing = cast("Any", None)
        stages = cast("Any", SimpleNamespace(item=self.items.extend))
        loaded = LoadedVersion(manifest, nothing, stages, nothing, Formulas(), memory_bytes=100)
        if free_bytes is not None and free_bytes < loaded.memory_bytes:
            raise Refused("memory_budget", "no room")
        return loaded


class Bench:
    """All of it.

    Attributes:
        hot_items: what a version is to have the tensors of, in parts.
    """

    def __init__(self, directory: Path, manifest: Manifest, budget: int | None = None) -> None:
        self.directory = directory
        self.metrics = Metrics()
        self.gate = FakeGate(manifest)
        self.closed: list[int] = []
        self.hot_items: Iterable[Any] = ()
        self.registry = Registry(
            self.metrics, lambda closed: self.closed.append(closed.manifest.version)
        )
        self.board = Board(ALONE, 0.002)
        plan = Plan(directory, self.registry)
        loader = Loader(
            directory,
            self.registry,
            cast("Gate", self.gate),
            plan,
            budget,
            Turn(ALONE),
            _nothing,
            lambda version: self.hot_items,
        )
        metrics, bell = self.metrics, Bell(ALONE)
        self.follower = Follower(
            directory, self.registry, plan, loader, 0.002, metrics, self.board, bell
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


async def _nothing(version: LoadedVersion) -> None:
    """The store has all rows."""


OnBench = Callable[[Callable[[Bench], Awaitable[None]]], None]


def lease(bench: Bench, name: str | None = None, version: int | None = None) -> Any:
    return bench.registry.lease(name, version)
