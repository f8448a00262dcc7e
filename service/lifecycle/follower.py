"""Following the models directory: what its deployment files say is loaded, and given its part.

    look -> deployment -> wanted versions -> load what is not there -> assign parts -> look again

What is wanted (`plan.py`) is worked out afresh at every look, from the files alone. One version is
loaded at a time, on a thread of its own, and by one worker at a time (`turn.py`); all others go on
meanwhile, and so does the following. A worker that sees a change lets the others look (`bell.py`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from bundle.store import model_names
from service.cores import lower_priority
from service.lifecycle.bell import Bell
from service.lifecycle.board import Board
from service.lifecycle.deployment import Deployment, DeploymentInvalid, in_words
from service.lifecycle.deployment_file import read
from service.lifecycle.formulas import FUSIONS_DIR
from service.lifecycle.fusion_files import FusionFiles
from service.lifecycle.gate import Gate, Refused
from service.lifecycle.judge import Judge
from service.lifecycle.memory import LettingGo
from service.lifecycle.pace import Pace
from service.lifecycle.plan import Plan
from service.lifecycle.registry import Model, Registry
from service.lifecycle.report import part
from service.lifecycle.turn import Turn
from service.lifecycle.version import LoadedVersion, State, VersionStatus
from service.lifecycle.warm_up import keep_items
from service.metrics import Metrics
from service.scoring.runs import Ended
from service.values import Candidates

log = logging.getLogger(__name__)


class Follower:
    """Follows a directory of published models.

    Args:
        poll_s: seconds between two looks at the directory.
        memory_budget_bytes: of all loaded versions together; None for no limit.
        board: told after every look what this worker serves.
        bell: wakes the other workers, and this one.
        turn: when versions are loaded beside requests.
        read_ahead: has rows read that a version needs; raises Refused where the store lacks them.
        hot_items: the items whose tensors a version is to have before its first request.

    Attributes:
        looked: set once every version that was wanted at the start is live or refused, and
            some model is live unless there is none.
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
        read_ahead: Callable[[LoadedVersion], Awaitable[None]],
        hot_items: Callable[[LoadedVersion], Iterable[Candidates]],
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
        self._read_ahead = read_ahead
        self._hot_items = hot_items
        self._plan = Plan(directory, registry)
        self._judge = Judge(directory, board, metrics)
        self.looked = asyncio.Event()
        self._wake = asyncio.Event()
        self._told = self._others_know = False
        self._troubles: dict[Path, str] = {}
        self._loader = ThreadPoolExecutor(1, "load", initializer=lower_priority)
        self._letting_go = LettingGo(gate.tensors, self._loader)
        self._following: asyncio.Task[None] | None = None
        self._loading: asyncio.Task[None] | None = None
        self._fusions: dict[str, FusionFiles] = {}
        self._releasing: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to follow; the first versions are loaded in the background."""
        self._bell.listen(self._hear)
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
        self._hear()

    def refused(self, model: str, version: int) -> str | None:
        """Why a version is kept out, whatever becomes of the others; None if it may be let in."""
        return self._plan.refused(self._registry.model(model), version)

    def _hear(self) -> None:
        self._told = True
        self._wake.set()

    def _pass_on(self) -> None:
        """Let the others see what this one has seen, unless they have been told."""
        if not self._others_know:
            self._bell.ring()

    def _report(self) -> None:
        for model in self._registry.models:
            self._metrics.model_problems.labels(model.name).set(model.problem is not None)
        settled = {model: self._plan.settled(model) for model in self._registry.models}
        self._board.put({model.name: part(model, done) for model, done in settled.items()})
        nothing_due = self._registry.ready and self._plan.next_missing() is None
        if nothing_due or all(settled.values()):
            self.looked.set()

    async def _follow(self) -> None:
        while True:
            self._others_know, self._told = self._told, False
            self._wake.clear()
            with self._going_on(self._directory):
                await self._look()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll_s):  # wait_for may lose a cancellation
                    await self._wake.wait()

    async def _look(self) -> None:
        names: list[str] = []
        with self._going_on(self._directory):
            names = model_names(self._directory)
        for model in self._registry.models:
            if model.name not in names:
                self._go_on_without(model, f"no version in {self._directory / model.name} any more")
        for name in names:
            model = self._registry.model(name)
            with self._going_on(self._directory / name):
                self._read_deployment(model)
                self._give_parts(model)
                await self.follow_fusions(model)
        if self._loading is None:
            self._load_next()
        self._report()
        for model in self._registry.models:
            await self._judge.look(model)

    @contextmanager
    def _going_on(self, place: Path) -> Iterator[None]:
        """Follow on, whatever happens, and say it once: an unreadable directory, a full disk."""
        try:
            yield
        except Exception as error:
            if self._troubles.get(place) != repr(error):
                log.exception("cannot follow %s", place)
            self._troubles[place] = repr(error)
        else:
            self._troubles.pop(place, None)

    def _give_parts(self, model: Model) -> None:
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
            if model.problem != str(error):
                self._metrics.deployments_refused.labels(model.name).inc()
            self._go_on_without(model, f"deployment refused: {error}")
            return
        model.problem = None
        if deployment != model.deployment:
            self._pass_on()
            before, model.deployment = model.deployment, deployment
            self._metrics.deployment_generation.labels(model.name).set(deployment.generation)
            if before is not None or deployment.generation:
                log.info("%s: deployment %s", model.name, in_words(deployment))

    def _go_on_without(self, model: Model, problem: str) -> None:
        """Keep what was read last of a model whose files cannot be followed now."""
        if model.problem != problem:
            kept = "the last deployment stays" if model.deployment else "nothing is served"
            log.error("%s: %s (%s)", model.name, problem, kept)
        model.problem = problem

    def _load_next(self) -> None:
        missing = self._plan.next_missing()
        if missing is not None:
            self._pass_on()
            self._loading = asyncio.create_task(self._load(*missing))

    async def _load(self, model: Model, version: int) -> None:
        seen = self._plan.files_of(model.name, version), self._plan.formulas_of(model.name)
        status = model.statuses[version] = VersionStatus(version, files=seen[0])
        loop = asyncio.get_running_loop()

        def enter(state: State) -> None:
            loop.call_soon_threadsafe(self._registry.enter, model, version, state)

        def admit() -> LoadedVersion:
            with pace.working():
                place = self._directory, model.name, version
                return self._gate.admit(*place, free, enter, pace)

        free = None if self._budget is None else self._budget - self._plan.bytes_loaded()
        serving = any(each.live for each in self._registry.models)
        pace = Pace(beside_requests=serving)
        try:
            async with self._turn.taken() if serving else nullcontext():
                loaded = await loop.run_in_executor(self._loader, admit)
                await self._read_ahead(loaded)
                await keep_items(self._hot_items(loaded), loaded, pace, self._loader)
        except Refused as refusal:
            self._registry.refuse(model, version, refusal.reason, str(refusal))
            self._plan.note(status, refusal, seen[1])
        except Ended as error:
            self._registry.refuse(model, version, "too_slow", str(error))
        except Exception as error:
            log.exception("%s version %d: loading failed", model.name, version)
            self._registry.refuse(model, version, "load_failed", str(error))
        else:
            self._registry.bring_in(model, loaded)
        finally:
            self._loading = None
            self._wake.set()

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
        letting_go = self._letting_go.let_go([closed])
        task = asyncio.get_running_loop().create_task(letting_go)
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)
