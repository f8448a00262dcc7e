"""`python -m loadtest.features_bench`: the feature stage at 200 candidates, beside a bare MGET.

    missing   no row in process: the stage, as the service measures it, and its round trips as Redis
              counts them
    bare      in turn, on the same core, an MGET of the same keys and their decoding, in a loop:
              with redis-py's blocking client, and with its asyncio client, which a service needs;
              between two reads the model runs, as it does in the service, whose stage it leaves
              with cold caches. `tight` is the blocking loop without the model.
    present   every row in process

Each of the four runs over the same requests, one after the other, in every round. The last line is
one JSON object; ends with 1 if the stage takes more than 1.5 times the bare loop that blocks.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Annotated, Any, cast

import onnxruntime
import orjson
import redis
import redis.asyncio
import typer
import uvloop

from bundle.rows import RowLayout
from bundle.store import load
from loadtest import workload
from loadtest.bare_loop import Inputs
from loadtest.closed_loop import closed_loop
from loadtest.pinned import cores
from loadtest.prepared import ITEMS, Feed, Prepared, outcome
from loadtest.redis_server import redis_with_features
from loadtest.served import Served, served
from loadtest.server import ServiceFailed, end_between_steps
from loadtest.workload import MODEL, BuildFailed, Workload

_CANDIDATES = 200
_MOST_TIMES_BARE = 1.5
_MOST_PRESENT_MS = 0.3
_TTL_S = 1e-4
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
            bare = _Bare(url, feed, server_core)
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
    for service in (present, missing):
        service.warm()
    stage, alone, blocking, tight, hit = [], [], [], [], []
    trips = 0
    for _ in range(rounds):
        before = bare.round_trips()
        stage += _stage_ms(missing, requests)
        trips += bare.round_trips() - before
        blocking += bare.blocking_ms(requests, model=True)
        alone += bare.asyncio_ms(requests, model=True)
        tight += bare.blocking_ms(requests, model=False)
        hit += _stage_ms(present, requests)
    asked = len(stage)
    result: dict[str, Any] = {
        "candidates": _CANDIDATES,
        "requests": asked,
        "round_trips_a_request": trips / asked,
        "missing_ms": round(median(stage), 3),
        "bare_mget_and_decode_ms": round(median(alone), 3),
        "blocking_mget_and_decode_ms": round(median(blocking), 3),
        "tight_mget_and_decode_ms": round(median(tight), 3),
        "times_bare": round(median(stage) / median(alone), 2),
        "times_blocking": round(median(stage) / median(blocking), 2),
        "times_tight": round(median(stage) / median(tight), 2),
        "present_ms": round(median(hit), 3),
    }
    result["ok"] = (
        trips == asked
        and result["times_blocking"] <= _MOST_TIMES_BARE
        and result["present_ms"] <= _MOST_PRESENT_MS
    )
    return result


def _stage_ms(service: Served, requests: list[Prepared]) -> list[float]:
    """What the stage took in each request, one after the other."""
    took: list[float] = []

    def check(status: int, body: bytes, request: Prepared) -> str:
        found = outcome(status, body, request)
        if found == "ok":
            took.append(float(orjson.loads(body)["timing_ms"]["features"]))
        return found

    found = closed_loop(service.url, requests, connections=1, seconds=None, check=check).outcomes
    if len(took) != len(requests):
        raise ServiceFailed(f"answers: {dict(found)}")
    return took


class _Bare:
    """An MGET of the keys of a request, and their decoding, on the core that the service has."""

    def __init__(self, url: str, feed: Workload, core: int) -> None:
        self._core = core
        self._blocking = redis.Redis.from_url(url)
        self._asyncio = redis.asyncio.Redis.from_url(url)
        self._loop = uvloop.new_event_loop()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._model = onnxruntime.InferenceSession(
            feed.undivided, options, ["CPUExecutionProvider"]
        )
        self._inputs = Inputs(feed.bundle).draw(_CANDIDATES)[0]
        schema = load(feed.bundle).manifest.features
        self._layouts = RowLayout(schema, "user"), RowLayout(schema, "item")
        self._prefixes = [self._prefix(entity) for entity in ("user", "item")]

    def _prefix(self, entity: str) -> str:
        keys = self._blocking.scan_iter(f"mr:{MODEL}:{entity}:*")
        return str(cast("bytes", next(iter(keys))).decode().rpartition(":")[0]) + ":"

    def round_trips(self) -> int:
        """MGETs that Redis has answered."""
        stats = self._blocking.info("commandstats")
        return int(stats.get("cmdstat_mget", {"calls": 0})["calls"])

    def blocking_ms(self, requests: list[Prepared], model: bool) -> list[float]:
        """With redis-py's blocking client."""

        async def read(keys: list[str]) -> list[bytes]:
            return cast("list[bytes]", self._blocking.mget(keys))

        return self._timed(read, requests, model)

    def asyncio_ms(self, requests: list[Prepared], model: bool) -> list[float]:
        """With redis-py's asyncio client, on the event loop that the service has."""

        async def read(keys: list[str]) -> list[bytes]:
            return cast("list[bytes]", await self._asyncio.mget(keys))

        return self._timed(read, requests, model)

    def _timed(
        self,
        read: Callable[[list[str]], Awaitable[list[bytes]]],
        requests: list[Prepared],
        model: bool,
    ) -> list[float]:
        async def run() -> list[float]:
            took = []
            for keys in map(self._keys, requests):
                started = time.perf_counter()
                self._decode(await read(keys))
                took.append(1000 * (time.perf_counter() - started))
                if model:
                    self._model.run(None, self._inputs)
            return took

        usual = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {self._core})
        try:
            return self._loop.run_until_complete(run())
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
