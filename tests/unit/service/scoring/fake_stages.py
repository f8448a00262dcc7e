"""Stages in numpy that can be held, can throw and keep a log, for tests of the batcher.

A request is a number, its items are numbers; the scores of (request r, item i) are exact:
[1000 r + i, r - i].
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from service.metrics import Metrics
from service.scoring.batcher import Batcher
from service.scoring.item_cache import ItemTensors
from service.scoring.queue import Answer
from service.values import Candidates, UserSide

Array = npt.NDArray[np.float32]
Result = TypeVar("Result")
LATER_S = 60.0
PATIENCE_S = 10.0
"""How long a test waits for what must happen; only a failing test waits so long."""


class Thrown(Exception):
    """What the stages raise."""


@dataclass
class FakeStages:
    """Stages as `Batcher` wants them.

    Attributes:
        poison: items that the item stage throws on.
        reshape: stage name -> what is done to its output, to return other rows than asked for.
        runs: (request, item) of each row of each run of the joint stage, in order.
        user_runs: the requests of each run of the user stage.
    """

    poison: Collection[float] = ()
    reshape: dict[str, Callable[[Array], Array]] = field(default_factory=dict)
    runs: list[list[tuple[int, int]]] = field(default_factory=list)
    user_runs: list[list[int]] = field(default_factory=list)
    attempts: int = 0
    _open: threading.Event = field(default_factory=threading.Event)
    _held: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._open.set()

    def user(self, users: UserSide) -> Array:
        numbers = cast("Array", np.asarray(users.users, np.float32))
        self.user_runs.append([int(each) for each in numbers[:, 0]])
        return self._changed("user", numbers.copy())

    def item(self, items: Sequence[Candidates]) -> Array:
        self.attempts += 1
        self._held.set()
        if not self._open.wait(PATIENCE_S):
            raise AssertionError("the stages were held and never released")
        values = cast("Array", np.concatenate([part.rows for part in items]))
        if bad := set(values[:, 0].tolist()) & set(self.poison):
            raise Thrown(f"poisoned by {sorted(bad)}")
        return self._changed("item", values.copy())

    def joint(self, user_tensor: Array, item_tensors: ItemTensors, user_row: Any) -> Array:
        users, items = user_tensor[user_row, 0], item_tensors[:][:, 0]
        self.runs.append([(int(u), int(i)) for u, i in zip(users, items, strict=False)])
        return self._changed("joint", np.stack((1000 * users + items, users - items), axis=1))

    def _changed(self, stage: str, output: Array) -> Array:
        change = self.reshape.get(stage)
        return output if change is None else change(output)

    def hold(self) -> None:
        """Let the next run begin, and keep it there."""
        self._held.clear()
        self._open.clear()

    async def held(self) -> None:
        """Wait until a run is being held."""
        await until(self._held.is_set)

    def release(self) -> None:
        self._open.set()

    @property
    def rows(self) -> list[tuple[int, int]]:
        """All rows that were scored, in order."""
        return [row for run in self.runs for row in run]


def expected(request: int, items: Sequence[int]) -> list[list[float]]:
    return [[1000.0 * request + item, float(request - item)] for item in items]


def user(request: int) -> UserSide:
    rows = cast("Any", np.array([[request]], np.float32))
    return UserSide(rows, rows)


def candidates(items: Sequence[int]) -> Candidates:
    rows = np.array(items, np.float32).reshape(-1, 1)
    return Candidates(cast("Any", rows), np.zeros(len(items), np.uint64))


class ByHand(Executor):
    """Runs what was submitted when the test says so."""

    def __init__(self) -> None:
        self.submitted: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.submitted.append((future, lambda: fn(*args, **kwargs)))
        return future

    def run(self) -> None:
        future, work = self.submitted.pop(0)
        future.set_result(work())


@dataclass
class Bench:
    """A batcher on fake stages and a real thread, and its metrics."""

    batcher: Batcher
    stages: FakeStages
    metrics: Metrics

    def score(self, request: int, items: Sequence[int], within_s: float = LATER_S) -> Any:
        return self.score_by(request, items, time.monotonic() + within_s)

    def score_by(self, request: int, items: Sequence[int], deadline: float) -> Any:
        return self.batcher.score(user(request), candidates(items), deadline)

    def submit(
        self, request: int, items: Sequence[int], within_s: float = LATER_S
    ) -> asyncio.Task[Answer]:
        """Put a request into the queue; it is there after the next turn of the loop."""
        return asyncio.ensure_future(self.score(request, items, within_s))

    async def occupy(self) -> asyncio.Task[Answer]:
        """Hold a run of request 0 with the item 0, so that all others must wait."""
        self.stages.hold()
        running = self.submit(0, [0])
        await self.stages.held()
        return running

    def value(self, name: str, **labels: str) -> float:
        """A metric's value; 0 when it was never counted."""
        labels["model"] = "m"
        return self.metrics.registry.get_sample_value(f"multirank_{name}", labels) or 0.0

    def dropped(self, reason: str) -> float:
        return self.value("dropped_requests_total", reason=reason)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, giving the loop its turns."""
    give_up = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up, "waited in vain"
        await asyncio.sleep(0.001)


async def turns(count: int = 5) -> None:
    """Let everything that is ready on the loop run."""
    for _ in range(count):
        await asyncio.sleep(0)


def on_bench(
    test: Callable[[Bench], Awaitable[Result]],
    *,
    row_budget: int = 100,
    queue_rows: int = 10_000,
    poison: Collection[float] = (),
    reshape: dict[str, Callable[[Array], Array]] | None = None,
    executor: Executor | None = None,
) -> Result:
    """Run a test on a fresh batcher; afterwards nothing may be left in its queue."""
    metrics = Metrics()
    stages = FakeStages(poison=poison, reshape=reshape or {})

    async def run(executor: Executor) -> Result:
        batcher = Batcher(
            "m", stages, executor, row_budget=row_budget, queue_rows=queue_rows, metrics=metrics
        )
        bench = Bench(batcher, stages, metrics)
        try:
            result = await asyncio.wait_for(cast("Any", test(bench)), PATIENCE_S)
        finally:
            stages.release()
        assert bench.value("queued_rows") == 0
        return cast("Result", result)

    if executor is not None:
        return asyncio.run(run(executor))
    with ThreadPoolExecutor(1) as threads:
        return asyncio.run(run(threads))
