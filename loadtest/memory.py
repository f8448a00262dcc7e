"""`python -m loadtest.memory`: what a 1 GiB embedding table costs, shared by several workers.

Builds a bundle with such a table, serves it with several workers, and lets each rank random items
until it has read nearly all of the table. Memory is the proportional set size (PSS): a page that n
processes share counts 1/n in each, so that the sum is what the machine has to hold. The last line
is one JSON object, in MiB.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import numpy as np
import orjson
import typer

from loadtest.processes import family
from loadtest.server import ServiceFailed, pause, serving

_MODEL = "big_table"
_TABLE_FILE = "embeddings.bin"
_CANDIDATES = 2000
_MIB = 1 << 20
_READY_S = 120.0


def memory(
    workers: Annotated[int, typer.Option(min=1)] = 4,
    requests: Annotated[int, typer.Option(min=1, help="Of 2,000 candidates, for each worker")] = 60,
) -> None:
    """Measure the memory of `workers` processes that serve one large table."""
    with tempfile.TemporaryDirectory(prefix="multirank-memory-", dir=".") as scratch:
        directory = Path(scratch)
        # a process of its own: torch would stay in this one
        subprocess.run([sys.executable, "-m", "loadtest.big_table", scratch], check=True)
        table = next((directory / "models").rglob(_TABLE_FILE))
        command = [sys.executable, "-m", "multirank", "serve", "--workers", str(workers)]
        try:
            with serving(directory / "models", _MODEL, directory / "log", command) as service:
                _wait_for_all(service.url)
                found = {"before": _pss(service.process.pid)}
                _rank(service.url, workers, requests)
                found["after"] = _pss(service.process.pid)
        except ServiceFailed as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(1) from error
        result = _result(table.stat().st_size / _MIB, workers, found)
    print(json.dumps(result), flush=True)


def _wait_for_all(url: str) -> None:
    give_up = time.monotonic() + _READY_S
    while True:
        try:
            urllib.request.urlopen(f"{url}/readyz", timeout=10).close()
        except OSError as error:  # a 503 is one, too
            if time.monotonic() > give_up:
                raise ServiceFailed(f"not ready after {_READY_S:.0f} s: {error}") from error
            pause(0.2)
        else:
            return


def _rank(url: str, workers: int, requests: int) -> None:
    """As many connections as there are workers: each gets one."""
    address = urlsplit(url)
    random = np.random.default_rng(0)
    connections = [HTTPConnection(str(address.hostname), address.port) for _ in range(workers)]
    for number in range(requests):
        for connection in connections:
            ids = random.integers(0, 1 << 40, _CANDIDATES).tolist()
            body = {
                "user": {"id": str(number % 8)},
                "candidates": {"ids": ids, "features": {"item": ids, "price": [1.0] * len(ids)}},
                "format": "columns",
                "timeout_ms": 60_000,
            }
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/score", orjson.dumps(body), headers)
            with closing(connection.getresponse()) as answer:
                content = answer.read()
            if answer.status != 200:
                raise ServiceFailed(f"status {answer.status}: {content.decode()}")
    for connection in connections:
        connection.close()


def _pss(pid: int) -> list[dict[str, float]]:
    """Of the process and its children, MiB: in all, resident, and what is the table's share."""
    return [_of_process(each) for each in family(pid)]


def _of_process(pid: int) -> dict[str, float]:
    of_table = False
    sums = {"pss": 0, "rss": 0, "table_pss": 0, "table_rss": 0}
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            of_table = line.endswith(f"/{_TABLE_FILE}")
        elif found := re.match(r"(Pss|Rss): +(\d+) kB", line):
            name, size = found.group(1).lower(), int(found.group(2))
            sums[name] += size
            sums[f"table_{name}"] += size * of_table
    return {name: round(size / 1024, 1) for name, size in sums.items()}


def _result(table: float, workers: int, found: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    def total(processes: Iterable[dict[str, float]], name: str) -> float:
        return round(sum(each[name] for each in processes), 1)

    after = found["after"]
    return {
        "table_mib": round(table, 1),
        "workers": workers,
        "table_pss_mib": total(after, "table_pss"),
        "table_rss_mib": total(after, "table_rss"),
        "pss_mib": total(after, "pss"),
        "pss_before_ranking_mib": total(found["before"], "pss"),
        "processes": after,
    }


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command()(memory)

if __name__ == "__main__":
    app()
