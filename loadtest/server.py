"""A service of the load test's own: started on a free port, stopped whatever happens."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 40.0  # the service gives its last requests 30 s
_LOG_TAIL_LINES = 20


class ServiceFailed(Exception):
    """The service did not start, or ended by itself; the message has the end of its log."""


@dataclass(frozen=True)
class RunningService:
    """A service that was ready when it was handed out."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Raise ServiceFailed when it has ended."""
        _check_alive(self.process, self.log)


@contextmanager
def serving(
    models: Path,
    model: str,
    log: Path,
    command: Sequence[str] = (sys.executable, "-m", "multirank", "serve"),
) -> Iterator[RunningService]:
    """Serve `models` on a free local port; every other setting comes from the environment.

    Args:
        model: the one that must be ready; the others may be or not.
        log: file that the service's log is written to.

    Raises:
        ServiceFailed: not ready within a minute, every version refused, or gone.
    """
    options = ("--models", str(models), "--host", "127.0.0.1", "--port", "0")
    settings = {**os.environ, "MULTIRANK_LOG_LEVEL": "info"}  # the log says which port it got
    with (
        log.open("wb") as output,
        subprocess.Popen(
            (*command, *options), stdout=output, stderr=subprocess.STDOUT, env=settings
        ) as process,
    ):
        try:
            url = _wait_ready(process, model, log)
            service = RunningService(url, process, log)
            yield service
            service.check()
        finally:
            _stop(process)


_signals: list[int] = []


def end_between_steps() -> None:
    """From now on SIGTERM and SIGINT end this process at the next `pause`.

    An exception in the midst of starting a process would leave one behind that nobody knows.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: _signals.append(number))


def pause(seconds: float) -> None:
    """Sleep, then end the process, by SystemExit, if it was told to."""
    time.sleep(seconds)
    if _signals:
        sys.exit(128 + _signals[0])


def tail(log: Path) -> str:
    """The last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:])


def _wait_ready(process: subprocess.Popen[bytes], model: str, log: Path) -> str:
    """The URL, once a version of the model is ready."""
    give_up = time.monotonic() + _START_TIMEOUT_S
    found = "nothing about where it listens"
    while time.monotonic() < give_up:
        _check_alive(process, log)
        if listens := re.search(r"running on (http://\S+)", log.read_text(errors="replace")):
            versions = _versions(listens.group(1), model)
            states = {version["state"] for version in versions}
            if "ready" in states:
                return listens.group(1)
            if states == {"refused"}:
                raise ServiceFailed(f"{model} version {_newest(versions)}")
            found = ", ".join(sorted(states)) or f"no {model}"
        pause(0.1)
    raise ServiceFailed(f"not ready after {_START_TIMEOUT_S:.0f} s: {found}; its log:\n{tail(log)}")


def _versions(url: str, model: str) -> list[dict[str, Any]]:
    try:
        with _local.open(f"{url}/models", timeout=5) as answer:
            listed = json.load(answer)["models"]
    except OSError:  # it says where it listens a moment before it does
        return []
    return next((each["versions"] for each in listed if each["name"] == model), [])


def _newest(versions: Sequence[dict[str, Any]]) -> str:
    newest = max(versions, key=lambda each: each["version"])
    return f"{newest['version']} was refused: {newest['reason']}"


_local = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Opens local URLs, whatever proxy the environment names."""


def _check_alive(process: subprocess.Popen[bytes], log: Path) -> None:
    if process.poll() is not None:
        raise ServiceFailed(
            f"the service ended by itself with {process.returncode}; its log:\n{tail(log)}"
        )


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
