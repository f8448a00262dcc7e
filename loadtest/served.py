"""Served: multirank over HTTP, its one process on the core that the bare loop has in its turn."""

from __future__ import annotations

import re
import sys
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from loadtest.closed_loop import closed_loop
from loadtest.pinned import pinned
from loadtest.prepared import Feed, Prepared
from loadtest.processes import cpu_seconds, resident_bytes
from loadtest.server import RunningService, serving
from loadtest.workload import MODEL, Workload

_POOL = 3_000
"""Different requests of one size; a loop that outlasts them goes round."""

_WARM_UP_S = 0.3
_SAMPLE = re.compile(r"^multirank_(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class ServedRound:
    """One timed closed loop.

    Attributes:
        requests_per_s: answers of any kind in a second.
        items_per_s: candidates of right answers in a second.
        cpu_ms: CPU time of the service for an answer, milliseconds.
        client_share: of the load generator's core, 0 to 1; near 1 it is the client that is slow.
        hit_rate: rows found in the item tensor cache, 0 to 1.
        run_ms_per_row: time of the model's runs over their rows; None without such metrics.
        outcomes: outcome -> answers.
    """

    requests_per_s: float
    items_per_s: float
    cpu_ms: float
    client_share: float
    hit_rate: float
    run_ms_per_row: float | None
    outcomes: Counter[str]


class Served:
    """A running service under test."""

    def __init__(self, service: RunningService) -> None:
        self._service = service
        self._feed = Feed(seed=1)
        self._everything = self._feed.everything()
        self._requests: dict[int, list[Prepared]] = {}
        self.url = service.url

    def requests(self, candidates: int) -> list[Prepared]:
        """Prepared requests; drawn once, the same objects every time."""
        if candidates not in self._requests:
            self._requests[candidates] = self._feed.draw(_POOL, candidates)
        return self._requests[candidates]

    def warm(self) -> None:
        """Ask for every user and item once: features expire, and a version starts with none."""
        closed_loop(self.url, self._everything, connections=4, seconds=None)

    def ask(self, request: Prepared) -> Any:
        """The answer to one request."""
        _head, _, body = request.message.partition(b"\r\n\r\n")
        asked = urllib.request.Request(
            f"{self.url}/rank", body, {"Content-Type": "application/json"}
        )
        with _direct.open(asked, timeout=10) as answer:
            return orjson.loads(answer.read())

    def round(self, candidates: int, connections: int, seconds: float) -> ServedRound:
        """Load it for `seconds`."""
        requests = self.requests(candidates)
        closed_loop(self.url, requests[::-1], connections, _WARM_UP_S)
        before, cpu, client = self.metrics(), self.cpu_seconds(), time.process_time()
        found = closed_loop(self.url, requests, connections, seconds)
        client, cpu = time.process_time() - client, self.cpu_seconds() - cpu
        after = self.metrics()
        self._service.check()
        hits, misses, rows, run_s = (
            after[name] - before[name]
            for name in (
                "item_cache_rows_total hit",
                "item_cache_rows_total miss",
                "run_rows_sum",
                "run_seconds_sum",
            )
        )
        return ServedRound(
            requests_per_s=found.answers / found.seconds,
            items_per_s=found.rows / found.seconds,
            cpu_ms=1000 * cpu / found.answers,
            client_share=client / found.seconds,
            hit_rate=hits / max(hits + misses, 1),
            run_ms_per_row=1000 * run_s / rows if rows else None,
            outcomes=found.outcomes,
        )

    def metrics(self) -> dict[str, float]:
        """What /metrics says, by name and outcome, added up over the other labels."""
        with _direct.open(f"{self.url}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        found: dict[str, float] = defaultdict(float)
        for name, labels, value in _SAMPLE.findall(text):
            outcome = re.search(r'outcome="(\w+)"', labels)
            found[f"{name} {outcome.group(1)}" if outcome else name] += float(value)
        return found

    def cpu_seconds(self) -> float:
        """CPU seconds that the service's processes have used."""
        return cpu_seconds(self._service.process.pid)

    def resident_bytes(self) -> int:
        """Memory of the service's processes."""
        return resident_bytes(self._service.process.pid)


@contextmanager
def served(
    workload: Workload, redis_url: str, core: int, log: Path, **settings: object
) -> Iterator[Served]:
    """Serve the workload on a core.

    Args:
        settings: field names of the service's settings; all others come from the environment.
    """
    given = {"redis_url": redis_url, **settings}
    variables = {f"MULTIRANK_{name.upper()}": value for name, value in given.items()}
    command = pinned(core, [sys.executable, "-m", "multirank", "serve"], **variables)
    with serving(workload.models, MODEL, log, command) as service:
        yield Served(service)
