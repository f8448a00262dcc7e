"""`python -m loadtest.chaos.freshness`: write a feature, then rank: when do the scores change?

Each try takes an item whose row every worker has just served from its memory, writes it, and asks
every worker until it answers with the new value. One JSON line; ends with 1 if any took a second.
"""

from __future__ import annotations

import http.client
import json
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import numpy as np
import psutil
import typer

from loadtest.chaos.echo_model import ITEMS, MODEL, item_row
from loadtest.chaos.echo_service import echo_redis, serve_command
from loadtest.chaos.redis_under_test import RedisUnderTest
from loadtest.server import ServiceFailed, end_between_steps, pause, serving

_LIMIT_S = 1.0
_GIVE_UP_S = 5.0
_READY_S = 60.0
_MOST_CONNECTIONS = 64


def freshness(
    tries: Annotated[int, typer.Option(min=1, help="On each worker")] = 1_000,
    workers: Annotated[int, typer.Option(min=1, help="Processes that serve")] = 2,
) -> None:
    """Measure how soon a written feature is used, by every worker."""
    try:
        with tempfile.TemporaryDirectory(prefix="multirank-freshness-") as directory:
            scratch = Path(directory)
            with echo_redis(scratch) as (models, redis):
                command = serve_command(
                    redis.port, "--workers", str(workers), timeout_ms=1000 * _GIVE_UP_S
                )
                with serving(models, MODEL, scratch / "service.log", command) as service:
                    asked = _one_of_each(service.url, service.process.pid, workers)
                    took = [_try(number, redis, asked) for number in range(tries)]
    except ServiceFailed as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    each = np.array(took)
    fresh = (each <= _LIMIT_S).sum(axis=0).tolist()
    result = {
        "tries": tries,
        "fresh_within_1_s": fresh,
        "median_ms": round(1000 * float(np.median(each)), 2),
        "largest_ms": round(1000 * float(each.max()), 2),
    }
    print(json.dumps(result), flush=True)
    if fresh != [tries] * workers:
        raise typer.Exit(1)


def _try(
    number: int, redis: RedisUnderTest, workers: list[http.client.HTTPConnection]
) -> list[float]:
    """Seconds until each worker used what was written; infinity if it did not."""
    item, value = 1 + number % ITEMS, float(1 + number // ITEMS + number % 7)
    for worker in workers:
        _value(worker, item)  # now it is in process
    redis.write_items({item: item_row(item, value, time.time_ns() // 1_000_000)})
    written = time.monotonic()
    took: list[float] = []
    for worker in workers:
        while _value(worker, item) != value and time.monotonic() < written + _GIVE_UP_S:
            pause(0.0005)
        took.append(time.monotonic() - written)
    return took


def _value(worker: http.client.HTTPConnection, item: int) -> float:
    body = json.dumps({"user": {"id": 1}, "candidates": {"ids": [item]}})
    worker.request("POST", "/rank", body, {"Content-Type": "application/json"})
    answer = worker.getresponse()
    content: Any = json.loads(answer.read())
    if answer.status != 200:
        raise ServiceFailed(f"{answer.status}: {content}")
    return float(content["items"][0]["tasks"]["value"])


def _one_of_each(url: str, process: int, workers: int) -> list[http.client.HTTPConnection]:
    """A connection to each worker."""
    found: dict[int, http.client.HTTPConnection] = {}
    where = urlsplit(url)
    _wait_ready(http.client.HTTPConnection(str(where.hostname), where.port, timeout=10))
    for _ in range(_MOST_CONNECTIONS):
        connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=10)
        _value(connection, 1)
        found.setdefault(_served_by(connection, process), connection)
        if len(found) == workers:
            return list(found.values())
    raise ServiceFailed(f"{_MOST_CONNECTIONS} connections reached {len(found)} workers")


def _wait_ready(connection: http.client.HTTPConnection) -> None:
    """Wait until every worker is ready."""
    give_up = time.monotonic() + _READY_S
    while time.monotonic() < give_up:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        answer.read()
        if answer.status == 200:
            connection.close()
            return
        pause(0.1)
    raise ServiceFailed(f"not ready after {_READY_S:.0f} s")


def _served_by(connection: http.client.HTTPConnection, process: int) -> int:
    """The process, of the service's, that has the other end of a connection."""
    port = connection.sock.getsockname()[1]
    parent = psutil.Process(process)
    for each in (*parent.children(recursive=True), parent):
        if any(c.raddr and c.raddr.port == port for c in each.net_connections("tcp")):
            return int(each.pid)
    raise ServiceFailed("a connection that no process of the service has")


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command()(freshness)

if __name__ == "__main__":
    end_between_steps()
    app()
