"""`python -m loadtest.features_bench`: the feature stage at 200 candidates, beside a bare MGET.

    missing   no row in process: the stage, as the service measures it, and its round trips as Redis
              counts them; in turn, on the same core, an MGET of the same keys and their decoding
    present   every row in process

The bare loop has redis-py's asyncio client, which a service needs, and its blocking one. The last
line is one JSON object; ends with 1 if the stage takes more than it may.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Annotated, Any, cast

import orjson
import redis
import redis.asyncio
import typer
import uvloop

from bundle.rows import RowLayout
from bundle.store import load
from loadtest import workload
from loadtest.pinned import cores
from loadtest.prepared import ITEMS, Feed, Prepared
from loadtest.redis_server import redis_with_features
from loadtest.served import Served, served
from loadtest.server import ServiceFailed, end_between_steps
from loadtest.workload import MODEL, BuildFailed

_CANDIDATES = 200
_MOST_TIMES_BARE = 1.5
_MOST_PRESENT_MS = 0.3
_TTL_S = 0.05
"""Rows of the service that is to miss them expire at once."""


def features_bench(
    directory: Annotated[
        Path, typer.Option("--workload", help="Directory of the workload; built if need be")
    ] = Path(".data/feed200"),
    rounds: Annotated[int, typer.Option(min=1, help="Passes over all items")] = 10,
) -> None:
    """Measure the feature stage beside a bare MGET of the same keys."""
    client_core, server_core = cores()
    try:
        feed = workload.ready(directory)
        os.sched_setaffinity(0, {client_core})
        with ExitStack() as stack:
            scratch = Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="multirank-features-"))
            )
            url = stack.enter_context(redis_with_features(feed.models, MODEL, client_core, scratch))
            missing, present = (
                stack.enter_context(
                    served(feed, url, server_core, scratch / f"{name}.log", **settings)
                )
                for name, settings in (
                    ("missing", {"feature_ttl_s": _TTL_S}),
                    ("present", {"feature_ttl_s": 3600.0}),
                )
            )
            requests = Feed(seed=3).draw(ITEMS // _CANDIDATES, _CANDIDATES)
            bare = _Bare(url, feed.bundle, server_core)
            result = _measure(missing, present, bare, requests, rounds)
    except (BuildFailed, ServiceFailed) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    print(json.dumps(result), flush=True)
    if not result["ok"]:
        raise typer.Exit(1)


def _measure(
    missing: Served, present: Served, bare: _Bare, requests: list[Prepared], rounds: int
) -> dict[str, Any]:
    present.warm()
    for request in requests:
        present.ask(request)
        missing.ask(request)
    stage, alone, blocking, hit = [], [], [], []
    trips = asked = 0
    for _ in range(rounds):
        for request in requests:
            before = bare.round_trips()
            answer = missing.ask(request)
            trips += bare.round_trips() - before
            asked += 1
            if answer["degraded"] is not None:
                raise ServiceFailed(f"degraded: {answer['degraded']}")
            stage.append(float(answer["timing_ms"]["features"]))
            alone.append(bare.asyncio_ms(request))
            blocking.append(bare.blocking_ms(request))
            hit.append(float(present.ask(request)["timing_ms"]["features"]))
    result: dict[str, Any] = {
        "candidates": _CANDIDATES,
        "requests": asked,
        "round_trips_a_request": trips / asked,
        "missing_ms": round(median(stage), 3),
        "bare_mget_and_decode_ms": round(median(alone), 3),
        "blocking_mget_and_decode_ms": round(median(blocking), 3),
        "times_bare": round(median(stage) / median(alone), 2),
        "times_blocking": round(median(stage) / median(blocking), 2),
        "present_ms": round(median(hit), 3),
    }
    result["ok"] = (
        trips == asked
        and result["times_bare"] <= _MOST_TIMES_BARE
        and result["present_ms"] <= _MOST_PRESENT_MS
    )
    return result


class _Bare:
    """An MGET of the keys of a request, and their decoding, on the core that the service has."""

    def __init__(self, url: str, bundle: Path, core: int) -> None:
        self._core = core
        self._blocking = redis.Redis.from_url(url)
        self._asyncio = redis.asyncio.Redis.from_url(url)
        self._loop = uvloop.new_event_loop()
        schema = load(bundle).manifest.features
        self._layouts = RowLayout(schema, "user"), RowLayout(schema, "item")
        self._prefixes = [self._prefix(entity) for entity in ("user", "item")]

    def _prefix(self, entity: str) -> str:
        keys = self._blocking.scan_iter(f"mr:{MODEL}:{entity}:*")
        return str(cast("bytes", next(iter(keys))).decode().rpartition(":")[0]) + ":"

    def round_trips(self) -> int:
        """MGETs that Redis has answered."""
        stats = self._blocking.info("commandstats")
        return int(stats.get("cmdstat_mget", {"calls": 0})["calls"])

    def blocking_ms(self, request: Prepared) -> float:
        """With redis-py's blocking client."""
        keys = self._keys(request)
        return self._timed(lambda: cast("list[bytes]", self._blocking.mget(keys)))

    def asyncio_ms(self, request: Prepared) -> float:
        """With redis-py's asyncio client, on the event loop that the service has."""
        keys = self._keys(request)
        asyncio.set_event_loop(self._loop)
        took: list[float] = []

        async def read() -> None:
            started = time.perf_counter()
            self._decode(cast("list[bytes]", await self._asyncio.mget(keys)))
            took.append(1000 * (time.perf_counter() - started))

        self._on_core(lambda: self._loop.run_until_complete(read()))
        return took[0]

    def _timed(self, read: Callable[[], list[bytes]]) -> float:
        took: list[float] = []

        def timed() -> None:
            started = time.perf_counter()
            self._decode(read())
            took.append(1000 * (time.perf_counter() - started))

        self._on_core(timed)
        return took[0]

    def _on_core(self, work: Callable[[], None]) -> None:
        usual = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {self._core})
        try:
            work()
        finally:
            os.sched_setaffinity(0, usual)

    def _decode(self, blobs: list[bytes]) -> None:
        users, items = self._layouts
        if not (users.decode(blobs[:1]).found.all() and items.decode(blobs[1:]).found.all()):
            raise ServiceFailed("a row of the workload is not in Redis")

    def _keys(self, request: Prepared) -> list[str]:
        user = orjson.loads(request.message.partition(b"\r\n\r\n")[2])["user"]["id"]
        users, items = self._prefixes
        return [f"{users}{user}", *(f"{items}{each}" for each in request.candidates.tolist())]


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command()(features_bench)

if __name__ == "__main__":
    end_between_steps()
    app()
