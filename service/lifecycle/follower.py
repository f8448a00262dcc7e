"""Following the models directory: what its deployment files say is loaded, and given its part.

    look -> deployment -> wanted versions -> load what is not there -> assign parts -> look again

What is wanted (`plan.py`) is worked out afresh at every look, from the files alone. One version is
loaded at a time (`loader.py`); all others go on meanwhile, and so does the following. A worker that
sees a change lets the others look (`bell.py`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bundle.store import model_names
from service.lifecycle.bell import Bell
from service.lifecycle.board import Board
from service.lifecycle.deployment import Deployment, DeploymentInvalid, in_words
from service.lifecycle.deployment_file import read
from service.lifecycle.formulas import FUSIONS_DIR
from service.lifecycle.fusion_files import FusionFiles
from service.lifecycle.judge import Judge
from service.lifecycle.loader import Loader
from service.lifecycle.plan import Plan
from service.lifecycle.registry import Model, Registry
from service.lifecycle.report import part
from service.metrics import Metrics

log = logging.getLogger(__name__)


class Follower:
    """Follows a directory of published models.

    Args:
        plan: what is wanted. loader: loads it.
        poll_s: seconds between two looks at the directory.
        board: told after every look what this worker serves.
        bell: wakes the other workers, and this one.

    Attributes:
        looked: set once every version that was wanted at the start is live or refused, and
            some model is live unless there is none.
    """

    def __init__(
        self,
        directory: Path,
        registry: Registry,
        plan: Plan,
        loader: Loader,
        poll_s: float,
        metrics: Metrics,
        board: Board,
        bell: Bell,
    ) -> None:
        self._directory = directory
        self._registry = registry
        self._plan = plan
        self._loader = loader
        self._poll_s = poll_s
        self._metrics = metrics
        self._board = board
        self._bell = bell
        self._judge = Judge(directory, board, metrics)
        self.looked = asyncio.Event()
        self._wake = asyncio.Event()
        self._told = self._others_know = False
        self._troubles: dict[Path, str] = {}
        self._following: asyncio.Task[None] | None = None
        self._fusions: dict[str, FusionFiles] = {}

    def start(self) -> None:
        """Begin to follow; the first versions are loaded in the background."""
        self._bell.listen(self._hear)
        self._following = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Stop following. Leases in hand stay good."""
        self._bell.close()
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        await self._loader.stop()

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
        if all(settled.values()) or (self._registry.ready and not self._plan.next_missing()):
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
        with self._going_on(self._directory / "*"):
            names = model_names(self._directory)
        for model in self._registry.models:
            if model.name not in names:
                self._miss(model)
        for name in names:
            model = self._registry.model(name)
            with self._going_on(self._directory / name):
                self._read_deployment(model)
                self._give_parts(model)
                await self.follow_fusions(model)
        if not self._loader.busy:
            self._load_next()
        self._report()
        for model in self._registry.models:
            await self._judge.look(model)

    def _miss(self, model: Model) -> None:
        """See to a model that is in the directory no more."""
        if model.loaded:
            self._go_on_without(model, f"no version in {self._directory / model.name} any more")
        elif not self._loader.busy:
            self._registry.forget(model)

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
            if self._go_on_without(model, f"deployment refused: {error}"):
                self._metrics.deployments_refused.labels(model.name).inc()
            return
        model.problem = None
        if deployment != model.deployment:
            self._pass_on()
            before, model.deployment = model.deployment, deployment
            self._metrics.deployment_generation.labels(model.name).set(deployment.generation)
            if before is not None or deployment.generation:
                log.info("%s: deployment %s", model.name, in_words(deployment))

    def _go_on_without(self, model: Model, problem: str) -> bool:
        """Keep what was read last of a model whose files cannot be followed now; whether that is
        new.
        """
        new = model.problem != problem
        if new:
            kept = "the last deployment stays" if model.deployment else "nothing is served"
            log.error("%s: %s (%s)", model.name, problem, kept)
        model.problem = problem
        return new

    def _load_next(self) -> None:
        missing = self._plan.next_missing()
        if missing is not None:
            self._pass_on()
            self._loader.load(*missing, then=self._wake.set)

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
