"""Loading: a version that is wanted is let in by the gate, and has what its first request needs.

One version at a time, on a thread of its own, and by one worker at a time (`turn.py`); beside
requests at a pace that leaves them theirs (`pace.py`). What has closed is let go of on that thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

from service.cores import lower_priority
from service.lifecycle.gate import Gate
from service.lifecycle.memory import LettingGo
from service.lifecycle.pace import Pace
from service.lifecycle.plan import Plan
from service.lifecycle.refusal import Refused
from service.lifecycle.registry import Model, Registry
from service.lifecycle.turn import Turn
from service.lifecycle.version import LoadedVersion, State, VersionStatus
from service.lifecycle.warm_up import keep_items
from service.scoring.runs import Ended
from service.values import Candidates

log = logging.getLogger(__name__)


class Loader:
    """Loads versions into a registry, and lets go of them.

    Args:
        directory: of published models.
        plan: told what a version was refused for.
        memory_budget_bytes: of all loaded versions together; None for no limit.
        turn: when versions are loaded beside requests.
        read_ahead: has rows read that a version needs; raises Refused where the store lacks them.
        hot_items: the items whose tensors a version is to have before its first request.
    """

    def __init__(
        self,
        directory: Path,
        registry: Registry,
        gate: Gate,
        plan: Plan,
        memory_budget_bytes: int | None,
        turn: Turn,
        read_ahead: Callable[[LoadedVersion], Awaitable[None]],
        hot_items: Callable[[LoadedVersion], Iterable[Candidates]],
    ) -> None:
        self._directory = directory
        self._registry = registry
        self._gate = gate
        self._plan = plan
        self._budget = memory_budget_bytes
        self._turn = turn
        self._read_ahead = read_ahead
        self._hot_items = hot_items
        self._thread = ThreadPoolExecutor(1, "load", initializer=lower_priority)
        self._letting_go = LettingGo(gate.tensors, self._thread)
        self._loading: asyncio.Task[None] | None = None
        self._releasing: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> bool:
        """Whether a version is being loaded."""
        return self._loading is not None

    def load(self, model: Model, version: int, then: Callable[[], None]) -> None:
        """Begin to load a version; `then` is called when it is ready or refused."""
        self._loading = asyncio.create_task(self._load(model, version, then))

    async def stop(self) -> None:
        """Give up what is under way; nothing is loaded any more."""
        tasks = [each for each in (self._loading, *self._releasing) if each]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._thread.shutdown(wait=True)

    async def _load(self, model: Model, version: int, then: Callable[[], None]) -> None:
        seen = self._plan.files_of(model.name, version), self._plan.formulas_of(model.name)
        status = model.statuses[version] = VersionStatus(version, files=seen[0])
        try:
            loaded = await self._admit(model, version)
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
            then()

    async def _admit(self, model: Model, version: int) -> LoadedVersion:
        loop = asyncio.get_running_loop()
        free = None if self._budget is None else self._budget - self._plan.bytes_loaded()
        serving = any(each.live for each in self._registry.models)
        pace = Pace(beside_requests=serving)

        def enter(state: State) -> None:
            loop.call_soon_threadsafe(self._registry.enter, model, version, state)

        def admit() -> LoadedVersion:
            with pace.working():
                return self._gate.admit(self._directory, model.name, version, free, enter, pace)

        async with self._turn.taken() if serving else nullcontext():
            loaded = await loop.run_in_executor(self._thread, admit)
            await self._read_ahead(loaded)
            await keep_items(self._hot_items(loaded), loaded, pace, self._thread)
        return loaded

    def release(self, closed: LoadedVersion) -> None:
        """Let go of a version's memory, on the loading thread, once nothing refers to it."""
        letting_go = self._letting_go.let_go([closed])
        task = asyncio.get_running_loop().create_task(letting_go)
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)
