"""Following the models directory: what its deployment files say is loaded, and given its part.

    look -> deployment -> wanted versions -> load what is not there -> assign parts -> look again

What is wanted (`plan.py`) is worked out afresh at every look, from the files alone. One version is
loaded at a time, on a thread of its own, and by one worker at a time (`turn.py`); all others go on
meanwhile, and so does the following. A worker that sees a change lets the others look (`bell.py`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

from bundle.store import model_names
from service.cores import lower_priority
from service.lifecycle import memory
from service.lifecycle.bell import Bell
from service.lifecycle.board import Board
from service.lifecycle.deployment import Deployment, DeploymentInvalid, in_words
from service.lifecycle.deployment_file import read
from service.lifecycle.formulas import FUSIONS_DIR
from service.lifecycle.fusion_files import FusionFiles
from service.lifecycle.gate import Gate, Refused
from service.lifecycle.judge import Judge
from service.lifecycle.plan import Plan
from service.lifecycle.registry import Model, Registry
from service.lifecycle.report import part
from service.lifecycle.turn import Turn
from service.lifecycle.version import LoadedVersion, State, VersionStatus
from service.metrics import Metrics
from service.values import Candidates

log = logging.getLogger(__name__)

_HOT_ITEMS_S = 0.5
"""A busy machine takes long over them. The version then goes live; requests compute the others."""

_LETTING_GO_S = 0.2
"""After a version has closed: by then nothing of its last request is left that holds it."""


class Follower:
    """Follows a directory of published models.

    Args:
        poll_s: seconds between two looks at the directory.
        memory_budget_bytes: of all loaded versions together; None for no limit.
        board: told after every look what this worker serves.
        bell: wakes the other workers, and this one.
        turn: when versions are loaded beside requests.
        hot_items: the items whose tensors a version is to have before its first request.

    Attributes:
        looked: set once every version that was wanted at the start is live or refused.
    """

    def __init__(
        self,
        directory: Path,
        registry: Registry,
        gate: Gate,
        poll_s: float,
        memory_budget_bytes: int | None,
        metrics: Metrics,
        board: Board,
        bell: Bell,
        turn: Turn,
        hot_items: Callable[[LoadedVersion], Iterable[Candidates]] = lambda version: (),
    ) -> None:
        self._directory = directory
        self._registry = registry
        self._gate = gate
        self._poll_s = poll_s
        self._budget = memory_budget_bytes
        self._metrics = metrics
        self._board = board
        self._bell = bell
        self._turn = turn
        self._hot_items = hot_items
        self._plan = Plan(directory, registry)
        self._judge = Judge(directory, board, metrics)
        self.looked = asyncio.Event()
        self._wake = asyncio.Event()
        self._told = False
        self._loader = ThreadPoolExecutor(1, "load", initializer=lower_priority)
        self._following: asyncio.Task[None] | None = None
        self._loading: asyncio.Task[None] | None = None
        self._fusions: dict[str, FusionFiles] = {}
        self._releasing: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to follow; the first versions are loaded in the background."""
        self._bell.listen(self._wake.set)
        self._following = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Stop following. Leases in hand stay good."""
        self._bell.close()
        tasks = [each for each in (self._following, self._loading, *self._releasing) if each]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._loader.shutdown(wait=True)

    def wake(self) -> None:
        """Let all workers look at once: something has changed."""
        self._bell.ring()
        self._wake.set()

    def _report(self) -> None:
        settled = {model: self._plan.settled(model) for model in self._registry.models}
        parts = {model.name: part(model, done) for model, done in settled.items()}
        self._board.put(parts)
        for name, told in parts.items():
            for trial in told["trials"].values():
                self._measure(name, trial)
        if all(settled.values()):
            self.looked.set()

    def _measure(self, model: str, trial: Mapping[str, Any]) -> None:
        for task, index in trial["psi"].items():
            self._metrics.compared_psi.labels(model, task).set(index)
        if trial["latency_ratio"] is not None:
            self._metrics.compared_latency.labels(model).set(trial["latency_ratio"])

    async def _follow(self) -> None:
        while True:
            self._told = self._wake.is_set()
            self._wake.clear()
            try:
                names = model_names(self._directory)
            except Exception:  # an unreadable directory, say: what is live stays live
                log.exception("cannot follow %s", self._directory)
                names = []
            for name in names:
                model = self._registry.model(name)
                try:
                    self._follow_model(model)
                    await self.follow_fusions(model)
                except Exception:
                    log.exception("cannot follow %s", self._directory / name)
            if self._loading is None:
                self._load_next()
            self._report()
            for model in self._registry.models:
                await self._judge.look(model)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll_s):  # wait_for may lose a cancellation
                    await self._wake.wait()

    def _pass_on(self) -> None:
        """Let the others see what this one has seen, unless it was told itself."""
        if not self._told:
            self._bell.ring()

    def _follow_model(self, model: Model) -> None:
        self._read_deployment(model)
        wanted = self._plan.wanted(model)
        loaded, live = model.loaded, model.live
        stable = live if wanted.stable is None else loaded.get(wanted.stable, live)
        canary = loaded.get(wanted.canary) if wanted.canary else None
        shadow = loaded.get(wanted.shadow) if wanted.shadow else None
        self._registry.assign(model, stable, canary, shadow, model.deployment or Deployment())

    def _read_deployment(self, model: Model) -> None:
        try:
            deployment = read(self._directory, model.name)
        except DeploymentInvalid as error:
            self._keep_deployment(model, str(error))
            return
        model.problem = None
        if deployment != model.deployment:
            self._pass_on()
            before, model.deployment = model.deployment, deployment
            self._metrics.deployment_generation.labels(model.name).set(deployment.generation)
            if before is not None or deployment.generation:
                log.info("%s: deployment %s", model.name, in_words(deployment))

    def _keep_deployment(self, model: Model, problem: str) -> None:
        if model.problem != problem:
            kept = "the last one stays" if model.deployment else "nothing is served"
            log.error("%s: deployment refused: %s (%s)", model.name, problem, kept)
            self._metrics.deployments_refused.labels(model.name).inc()
        model.problem = problem

    def _load_next(self) -> None:
        missing = self._plan.next_missing()
        if missing is not None:
            self._pass_on()
            self._loading = asyncio.create_task(self._load(*missing))

    async def _load(self, model: Model, version: int) -> None:
        seen = self._plan.gate_sees(model.name, version)
        model.statuses[version] = VersionStatus(version, fingerprint=seen)
        loop = asyncio.get_running_loop()

        def enter(state: State) -> None:
            loop.call_soon_threadsafe(self._registry.enter, model, version, state)

        serving = any(each.live for each in self._registry.models)
        try:
            async with self._turn.taken() if serving else nullcontext():
                admit = partial(self._gate.admit, self._directory, model.name, version)
                loaded = await loop.run_in_executor(self._loader, admit, self._free_bytes(), enter)
                await self._keep_hot_items(loaded)
        except Refused as refusal:
            self._registry.refuse(model, version, refusal.reason, str(refusal))
            if refusal.for_memory:
                model.statuses[version].beside = self._plan.loaded_now()
        except Exception as error:
            log.exception("%s version %d: loading failed", model.name, version)
            self._registry.refuse(model, version, "load_failed", str(error))
        else:
            self._registry.bring_in(model, loaded)
        finally:
            self._loading = None
            self._wake.set()

    async def _keep_hot_items(self, loaded: LoadedVersion) -> None:
        """Have their tensors computed; a large part at a time, which hands over the lock least."""
        loop = asyncio.get_running_loop()
        gives_up, kept = loop.time() + _HOT_ITEMS_S, 0
        for items in self._hot_items(loaded):
            if loop.time() > gives_up:
                named = loaded.manifest.model, loaded.manifest.version
                log.info("%s version %d: no time for more than %d hot items", *named, kept)
                break
            await loop.run_in_executor(self._loader, loaded.stages.item, [items])
            kept += len(items)

    def _free_bytes(self) -> int | None:
        if self._budget is None:
            return None
        loaded = [each for model in self._registry.models for each in model.loaded.values()]
        return self._budget - sum(each.memory_bytes for each in loaded)

    async def follow_fusions(self, model: Model) -> None:
        """Bring formulas and rules that have changed to the versions that requests can reach."""
        served = [each for each in model.loaded.values() if not each.retired]
        if served:
            await self._fusion_files(model).follow(served)

    def _fusion_files(self, model: Model) -> FusionFiles:
        if model.name not in self._fusions:
            directory = self._directory / model.name / FUSIONS_DIR
            files = FusionFiles(directory, model.name, self._metrics)
            self._fusions[model.name], model.refused_fusions = files, files.refused
        return self._fusions[model.name]

    def release(self, closed: LoadedVersion) -> None:
        """Let go of a version's memory, on the loading thread, once nothing refers to it."""
        task = asyncio.get_running_loop().create_task(self._release([closed]))
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)

    async def _release(self, held: list[LoadedVersion]) -> None:
        await asyncio.sleep(_LETTING_GO_S)
        await asyncio.get_running_loop().run_in_executor(self._loader, _drop, held)


def _drop(held: list[LoadedVersion]) -> None:
    held.clear()
    memory.give_back()
