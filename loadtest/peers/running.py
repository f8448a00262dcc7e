"""A peer under test: started on its core, asked as multirank is, stopped for sure."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from loadtest.closed_loop import closed_loop
from loadtest.peers.environments import Environment, Unavailable
from loadtest.peers.products import Product
from loadtest.pinned import pinned
from loadtest.prepared import TASKS, Prepared, outcome
from loadtest.processes import cpu_seconds, family
from loadtest.redis_server import free_port
from loadtest.server import pause, tail
from loadtest.testbed import Testbed

_START_S = 120.0
_STOP_S = 15.0
_WARM_UP_S = 0.3
_TOLERANCE = 1e-4
"""Between a peer's scores and the bare loop's: the same graph over the same rows."""


@dataclass(frozen=True)
class PeerRound:
    """One timed closed loop.

    Attributes:
        items_per_s: candidates of right answers in a second.
        cpu_ms: CPU time of all its processes for an answer, milliseconds.
        outcomes: outcome -> answers.
    """

    requests_per_s: float
    items_per_s: float
    cpu_ms: float
    outcomes: Counter[str]


class Peer:
    """A peer that answers.

    Args:
        requests: as `Product.message` makes them.
    """

    def __init__(
        self, product: Product, url: str, pid: int, requests: Sequence[Prepared], log: Path
    ) -> None:
        self._product = product
        self._url = url
        self._pid = pid
        self._requests = requests
        self._log = log

    def round(self, candidates: int, connections: int, seconds: float) -> PeerRound:
        """Load it for `seconds`; `candidates` is what its requests have."""
        assert len(self._requests[0].candidates) == candidates
        closed_loop(self._url, self._requests[::-1], connections, _WARM_UP_S, self._check)
        cpu = cpu_seconds(self._pid)
        found = closed_loop(self._url, self._requests, connections, seconds, self._check)
        cpu = cpu_seconds(self._pid) - cpu
        if set(found.outcomes) - {"ok"}:
            raise Unavailable(f"wrong answers: {dict(found.outcomes)}; {_said(self._log)}")
        return PeerRound(
            requests_per_s=found.answers / found.seconds,
            items_per_s=found.rows / found.seconds,
            cpu_ms=1000 * cpu / found.answers,
            outcomes=found.outcomes,
        )

    def _check(self, status: int, body: bytes, request: Prepared) -> str:
        return outcome(status, self._product.body(body), request)

    def largest_difference(self, bed: Testbed, requests: Sequence[Prepared]) -> float:
        """The largest difference between its scores and the bare loop's.

        Raises:
            Unavailable: it is more than rounding.
        """
        largest = 0.0
        for request in requests:
            answer = ask(self._url, self._product, request)
            expected = np.array(bed.bare.scores(request.message.partition(b"\r\n\r\n")[2]))
            row_of = {item: row for row, item in enumerate(request.candidates.tolist())}
            rows = [row_of[item] for item in answer["ids"]]
            scores = np.stack([answer["tasks"][task] for task in TASKS], axis=1)
            largest = max(largest, float(np.abs(scores - expected[rows]).max()))
        if not largest <= _TOLERANCE:
            raise Unavailable(f"its scores are {largest} from those of the graph")
        return largest


def ask(url: str, product: Product, request: Prepared) -> Any:
    """The answer to one request.

    Raises:
        Unavailable: it is not a 200.
        OSError, HTTPException: it does not answer.
    """
    head, _, body = product.message(request).message.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    connection = HTTPConnection(url.removeprefix("http://"), timeout=10)
    try:
        headers = dict(line.split(": ", 1) for line in lines)
        connection.request("POST", first.split()[1], body, headers)
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise Unavailable(f"status {answer.status}: {content[:300].decode(errors='replace')}")
    return orjson.loads(product.body(content))


@contextmanager
def running(
    product: Product, environment: Environment, bed: Testbed, requests: Sequence[Prepared]
) -> Iterator[Peer]:
    """Start a peer, wait until it answers, and stop it with all that it started.

    Raises:
        Unavailable: it ended, or did not answer in time.
    """
    port = free_port()
    log = bed.scratch / f"{product.requirements}.log"
    command = pinned(bed.core, product.command(environment, port, bed.scratch))
    with (
        log.open("ab") as output,
        subprocess.Popen(
            command, stdout=output, stderr=output, env=_variables(product, environment, bed, port)
        ) as process,
    ):
        url = f"http://127.0.0.1:{port}"
        try:
            _wait(url, product, requests[0], process, log)
            messages = [product.message(request) for request in requests]
            yield Peer(product, url, process.pid, messages, log)
        finally:
            _stop(process)


def _variables(
    product: Product, environment: Environment, bed: Testbed, port: int
) -> Mapping[str, str]:
    shared = {
        "PEER_PORT": str(port),
        "PEER_BUNDLE": str(bed.workload.bundle.absolute()),
        "PEER_GRAPH": str(bed.workload.undivided.absolute()),
        "PEER_REDIS_URL": bed.redis_url,
        "PYTHONPATH": str(Path.cwd()),
        "OMP_NUM_THREADS": "1",
    }
    return {**os.environ, **shared, **product.variables(environment)}


def _wait(
    url: str, product: Product, request: Prepared, process: subprocess.Popen[bytes], log: Path
) -> None:
    give_up = time.monotonic() + _START_S
    said = "nothing"
    while time.monotonic() < give_up:
        if process.poll() is not None:
            raise Unavailable(f"ended with {process.returncode}: {_said(log)}")
        try:
            ask(url, product, request)
        except (OSError, HTTPException, Unavailable) as error:
            said = str(error)
            pause(0.3)
        else:
            return
    raise Unavailable(f"not ready after {_START_S:.0f} s: {said}; {_said(log)}")


def _said(log: Path) -> str:
    """The last error that a log tells of, else its last line."""
    lines = [line.strip() for line in tail(log).splitlines() if line.strip()]
    errors = [line for line in lines if "rror" in line]
    return (errors or lines or ["nothing in its log"])[-1]


def _stop(process: subprocess.Popen[bytes]) -> None:
    started = family(process.pid) if process.poll() is None else []
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_S)
    for pid in reversed(started):  # some leave children behind
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
