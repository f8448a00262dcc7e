"""`python -m loadtest.soak_swap`: swap two versions over and over under a constant load.

The load is an open loop at half of what the service was just measured to sustain beside the same
load generator and the same checks; measured anew every ten swaps, since what a machine does in a
minute is not what it did in the last. Every answer is held against scores computed beforehand, from
the files of the version that the answer names. A swap lasts from the call of /admin until every
worker says that it serves the new version, and half a second more, in which the old one gives its
memory back; what is due then counts as during. Ends with one JSON line, and with 1 when an answer
failed or was mixed.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import orjson
import typer

from bundle import store
from bundle.errors import BundleError
from loadtest import workload
from loadtest.closed_loop import closed_loop
from loadtest.offline import OfflineScores, Scores, second_version
from loadtest.open_loop import Answer, open_loop, poisson
from loadtest.prepared import Prepared
from loadtest.processes import resident_bytes
from loadtest.samples import RequestSource, SampleUnusable
from loadtest.server import RunningService, ServiceFailed, end_between_steps, serving

_TOKEN = "soak-swap"
_REQUESTS = 400
_TOLERANCE = 2e-4
_CONNECTIONS, _CAPACITY_S = 16, 4.0
_LEG_SWAPS = 10
_CONVERGED_S, _LOOK_S = 30.0, 0.1
_GIVING_BACK_S = 0.5
"""The service waits 0.2 s before it lets go of a version that has closed."""
_HEAD = (
    "POST /rank HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n"
)
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Checked(Prepared):
    """A request, and what each version answers to it.

    Attributes:
        place: id -> row of the scores.
        scores: version -> [N, T].
    """

    place: dict[str | int, int]
    scores: dict[int, Scores]
    tasks: tuple[str, ...]


@dataclass
class Swapper:
    """Swaps on a thread of its own, once a period, while the load runs.

    Attributes:
        spans: of each swap, time.monotonic() seconds: called, converged.
        resident: bytes of the service, a period after each swap.
    """

    service: RunningService
    model: str
    period_s: float
    spans: list[tuple[float, float]] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    failure: str = ""

    def run(self, swaps: int) -> None:
        """Swap from one version to the other, 1 at first; `failure` says why it ended early."""
        try:
            for _ in range(swaps):
                due = time.monotonic() + self.period_s
                self.swap(2 - len(self.spans) % 2)
                time.sleep(max(0.0, due - time.monotonic()))
                self.resident.append(resident_bytes(self.service.process.pid))
        except Exception as error:  # noqa: BLE001  # on a thread: told by the one who waits for it
            self.failure = repr(error)

    def swap(self, version: int) -> None:
        """Make `version` stable, and wait until every worker serves it."""
        called = time.monotonic()
        body = orjson.dumps({"version": version})
        headers = {"Authorization": f"Bearer {_TOKEN}", "Content-Type": "application/json"}
        url = f"{self.service.url}/admin/models/{self.model}/deploy"
        with _direct.open(urllib.request.Request(url, body, headers), timeout=10):
            pass
        while not self._serves(version):
            if time.monotonic() > called + _CONVERGED_S:
                raise TimeoutError(f"version {version} is not served after {_CONVERGED_S:.0f} s")
            time.sleep(_LOOK_S)
        self.spans.append((called, time.monotonic()))

    def _serves(self, version: int) -> bool:
        with _direct.open(f"{self.service.url}/models", timeout=10) as answer:
            models = {each["name"]: each for each in orjson.loads(answer.read())["models"]}
        model = models[self.model]
        return model["converged"] and all(w["stable"] == version for w in model["workers"])


def soak_swap(
    models: Annotated[
        Path | None, typer.Option(help="Models directory, copied; feed200 when left out")
    ] = None,
    model: Annotated[str, typer.Option(help="A model in it, of three stages")] = workload.MODEL,
    swaps: Annotated[int, typer.Option(min=2)] = 100,
    period_s: Annotated[float, typer.Option(min=0.5, help="From one swap to the next")] = 4.0,
    workers: Annotated[int, typer.Option(min=1)] = 2,
    candidates: Annotated[int, typer.Option(min=1)] = 200,
    share: Annotated[float, typer.Option(min=0.01, max=1, help="Load over capacity")] = 0.5,
    directory: Annotated[Path, typer.Option(help="Where feed200 is built")] = Path(".data/feed200"),
) -> None:
    """Swap under load; print one JSON line."""
    with tempfile.TemporaryDirectory(prefix="multirank-soak-") as scratch:
        served = Path(scratch) / "models"
        source = models or workload.ready(directory).models
        shutil.copytree(source / model, served / model)
        if len(store.versions(served, model)) < 2:
            second_version(served, model)
        try:
            requests = _requests(served, model, candidates)
            os.environ |= {
                "MULTIRANK_WORKERS": str(workers),
                "MULTIRANK_ADMIN_TOKEN": _TOKEN,
                "MULTIRANK_TIMEOUT_MS": "5000",
            }
            with serving(served, model, Path(scratch, "service.log")) as service:
                result = _soak(service, model, requests, swaps, period_s, share)
        except (BundleError, SampleUnusable, ServiceFailed) as error:
            typer.echo(error, err=True)
            raise typer.Exit(1) from error
    print(json.dumps({"model": model, "workers": workers, "candidates": candidates, **result}))
    if result["failed"] or result["mixed"] or result["swaps"] < swaps:
        raise typer.Exit(1)


def _requests(models: Path, model: str, candidates: int) -> list[Checked]:
    versions = {each: OfflineScores(models / model / str(each)) for each in (1, 2)}
    source = RequestSource(store.load(models / model / "1"), candidates, "columns")
    found = []
    for _ in range(_REQUESTS):
        asked = source.draw()
        content = orjson.loads(asked.body)
        scores = {number: version.of_request(content) for number, version in versions.items()}
        place = {each: row for row, each in enumerate(asked.candidates)}
        message = _HEAD.format(len(asked.body)).encode() + asked.body
        rows = np.arange(candidates)
        found.append(Checked(message, rows, place, scores, versions[1].tasks))
    least = min(float(np.abs(each.scores[1] - each.scores[2]).max()) for each in found)
    if least < 5 * _TOLERANCE:
        raise SampleUnusable(f"{model}: both versions score alike to {least:.1e}")
    return found


def _check(status: int, body: bytes, request: Prepared) -> str:
    """How an answer is to be counted: ok, a status, or mixed."""
    assert isinstance(request, Checked)
    if status != 200:
        return str(status)
    answer = orjson.loads(body)
    rows = [request.place[each] for each in answer["ids"]]
    found = np.array([answer["tasks"][task] for task in request.tasks], np.float32).T
    expected = request.scores[answer["model"]["version"]][rows]
    right = len(set(rows)) == len(request.place) and np.allclose(
        found, expected, rtol=_TOLERANCE, atol=_TOLERANCE
    )
    return "ok" if right else "mixed"


@dataclass(frozen=True)
class _Leg:
    """Some swaps in a row, under one load.

    Attributes:
        capacity_per_s, per_s: requests that the service sustained, and those that it was sent.
        started: time.monotonic() seconds.
    """

    capacity_per_s: float
    per_s: float
    started: float
    answers: list[Answer]


def _soak(
    service: RunningService,
    model: str,
    requests: list[Checked],
    swaps: int,
    period_s: float,
    share: float,
) -> dict[str, Any]:
    swapper = Swapper(service, model, period_s)
    swapper.swap(1)
    swapper.spans.clear()
    closed_loop(service.url, requests, _CONNECTIONS, None, _check)
    legs = [
        _leg(swapper, requests, min(_LEG_SWAPS, swaps - first), share)
        for first in range(0, swaps, _LEG_SWAPS)
    ]
    outcomes = Counter(each.outcome for leg in legs for each in leg.answers)
    return {
        "swaps": len(swapper.spans),
        "requests": outcomes.total(),
        "requests_per_s": _median_and_range([leg.per_s for leg in legs]),
        "capacity_requests_per_s": _median_and_range([leg.capacity_per_s for leg in legs]),
        "failed": outcomes.total() - outcomes["ok"] - outcomes["mixed"],
        "mixed": outcomes["mixed"],
        "outcomes": dict(outcomes),
        "converged_s": _converged([end - start for start, end in swapper.spans]),
        **_latency(legs, swapper.spans),
        **_memory(swapper.resident),
    }


def _leg(swapper: Swapper, requests: list[Checked], swaps: int, share: float) -> _Leg:
    service = swapper.service
    sustained = closed_loop(service.url, requests, _CONNECTIONS, _CAPACITY_S, _check)
    capacity_per_s = sustained.answers / sustained.seconds
    per_s = share * capacity_per_s
    arrivals = poisson(requests, per_s, swaps * swapper.period_s + 1.0, seed=len(swapper.spans))
    started: list[float] = []

    def watch(seconds: float) -> None:
        service.check()
        if not started:
            started.append(time.monotonic() - seconds)

    thread = threading.Thread(target=swapper.run, args=(swaps,))
    thread.start()
    answers = open_loop(service.url, arrivals, watch, _check)
    thread.join()
    if swapper.failure:
        raise ServiceFailed(swapper.failure)
    return _Leg(capacity_per_s, per_s, started[0], answers)


def _median_and_range(found: list[float]) -> list[float]:
    return [round(each, 1) for each in (statistics.median(found), min(found), max(found))]


def _converged(seconds: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(seconds), 2), "max": round(max(seconds), 2)}


def _latency(legs: list[_Leg], spans: list[tuple[float, float]]) -> dict[str, Any]:
    due = np.array([leg.started + each.due_s for leg in legs for each in leg.answers])
    ms = np.array([each.latency_ms for leg in legs for each in leg.answers])
    during: npt.NDArray[np.bool_] = np.zeros(len(due), bool)
    for called, converged in spans:
        during |= (due >= called) & (due <= converged + _GIVING_BACK_S)
    p99 = [
        float(np.percentile(part, 99)) if len(part) else None for part in (ms[during], ms[~during])
    ]
    ratio = round(p99[0] / p99[1], 3) if p99[0] and p99[1] else None
    return {
        "during": f"from the call until {_GIVING_BACK_S} s after every worker has converged",
        "share_during_swaps": round(float(during.mean()), 3),
        "p99_ms": {
            name: value and round(value, 2)
            for name, value in zip(("during", "outside"), p99, strict=True)
        },
        "p99_during_over_outside": ratio,
    }


def _memory(resident: list[int]) -> dict[str, Any]:
    tenth, last = resident[min(9, len(resident) - 1)], resident[-1]
    return {
        "rss_mb": {"after_10": round(tenth / 1e6, 1), "after_last": round(last / 1e6, 1)},
        "rss_last_over_10": round(last / tenth, 3),
    }


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command()(soak_swap)

if __name__ == "__main__":
    end_between_steps()
    sys.exit(app())
