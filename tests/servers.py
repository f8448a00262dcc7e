"""Real processes for tests: a Redis and the service, on free ports, stopped by the one who started.

Nothing here is a fake, and nothing looks for a server that is there already.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
import redis

from loadtest.redis_server import free_port, redis_executable

T = TypeVar("T")

WAIT_S = 30.0
"""Longest wait for anything that should be there at once: machines may be busy."""

_PATIENT = {"timeout_ms": 30_000, "feature_timeout_ms": 20_000, "poll_interval_ms": 100}
"""Settings of services under test: a busy machine must not make an answer late or degraded."""

_KEPT_VARIABLES = ("PATH", "HOME", "TMPDIR", "PYTHONPATH")
_SUSPICIOUS = re.compile(r" (?:WARNING|ERROR|CRITICAL) |Traceback|Warning:|Exception")


def eventually(condition: Callable[[], T], timeout_s: float = WAIT_S) -> T:
    """The first truthy result of `condition`.

    Raises:
        AssertionError: there was none in time.
    """
    give_up = time.monotonic() + timeout_s
    while True:
        if result := condition():
            return result
        assert time.monotonic() < give_up, f"not within {timeout_s} s: {result!r}"
        time.sleep(0.02)


def _low_port() -> int:
    """A free port; a node of a Cluster takes the one 10,000 above as well."""
    return next(port for port in iter(free_port, 0) if port < 55_536)


class Redis:
    """A Redis without persistence, on a port of its own; can be stopped and started again.

    Args:
        options: further ones of redis-server's command line.
        executable: another one than loadtest's.
    """

    def __init__(self, directory: Path, *options: str, executable: str | None = None) -> None:
        self._directory = directory
        self._options = options
        self._executable = executable or redis_executable()
        self._port = _low_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self._port}"

    @property
    def url(self) -> str:
        """As MULTIRANK_REDIS_URL wants it."""
        return f"redis://127.0.0.1:{self._port}/0"

    def client(self) -> redis.Redis:
        """A connection pool of the caller's own, to be closed by it."""
        return redis.Redis.from_url(self.url)

    def start(self) -> Self:
        """Start and wait until it answers; on another port should this one be gone meanwhile."""
        for _ in range(5):
            command = [self._executable, "--port", str(self._port), "--bind", "127.0.0.1"]
            command += ["--dir", str(self._directory), "--save", "", "--appendonly", "no"]
            command += self._options
            with (self._directory / "redis.log").open("ab") as log:
                self._process = subprocess.Popen(command, stdout=log, stderr=log)
            if eventually(self._state) == "answers":
                return self
            self._port = _low_port()
        raise AssertionError((self._directory / "redis.log").read_text())

    def _state(self) -> str:
        assert self._process is not None
        if self._process.poll() is not None:
            return "ended"
        with self.client() as client:
            try:
                # by id: on a port taken by another since, that other one would answer
                ours = client.info("server")["process_id"] == self._process.pid
            except redis.ConnectionError:
                return ""
        return "answers" if ours else ""

    def stop(self) -> None:
        """Stop it, at once and for sure."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let it hang, connections open and silent, for the length of the block."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def calls(self, command: str) -> int:
        """How often a command was called since the statistics were reset."""
        with self.client() as client:
            stats = client.info("commandstats")
        return int(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"])

    def reset_calls(self) -> None:
        """Count from zero again."""
        with self.client() as client:
            client.config_resetstat()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def environment(**settings: object) -> dict[str, str]:
    """The whole environment of a `multirank` process: nothing of the caller's own settings."""
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    given = {f"MULTIRANK_{name.upper()}": str(value) for name, value in settings.items()}
    return {"PYTHONWARNINGS": "default", **kept, **given}


def multirank(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a `multirank` command to its end."""
    command = [sys.executable, "-m", "multirank", *map(str, arguments)]
    return subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=WAIT_S, check=False
    )


class Service:
    """`multirank serve` as a process of its own, on a free port.

    Args:
        models: the model directory to serve.
        directory: an empty directory, for the log.
        settings: field names of `service.settings.Settings` and their values; and `at_port`, a
            port to listen on instead of a free one.

    Attributes:
        url: where it listens.
        http: a client of it.
    """

    def __init__(self, models: Path, directory: Path, settings: Mapping[str, object]) -> None:
        self._log_file = directory / "serve.log"
        settings = dict(settings)
        port = settings.pop("at_port", 0)
        command = [sys.executable, "-m", "multirank", "serve", "--models", str(models)]
        with self._log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(port)],
                env=environment(**_PATIENT | settings),
                stdout=log,
                stderr=log,
                cwd=directory,
            )
        self._expected: list[re.Pattern[str]] = []
        self._asked_to_end = self._killed = False
        try:
            self.url = eventually(self._find_url)
        except AssertionError:
            self.process.kill()
            self.process.wait()
            raise
        self.http = httpx.Client(base_url=self.url, timeout=WAIT_S)

    def _find_url(self) -> str:
        assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.log()}"
        found = re.search(r"running on (http://\S+)", self.log())
        return found.group(1) if found else ""

    def log(self) -> str:
        """All that the process has written so far."""
        return self._log_file.read_text()

    def expect_in_log(self, pattern: str) -> str:
        """Wait for a line that the test provoked; it will not count as unexpected.

        Returns:
            The line.
        """
        wanted = re.compile(pattern)
        self._expected.append(wanted)
        return eventually(lambda: next(filter(wanted.search, self.log().splitlines()), ""))

    def allow_in_log(self, pattern: str) -> None:
        """Let lines pass that the test may or may not provoke."""
        self._expected.append(re.compile(pattern))

    def wait_ready(self, timeout_s: float = WAIT_S) -> Self:
        """Wait until /readyz says so."""
        eventually(lambda: self.http.get("/readyz").status_code == 200, timeout_s)
        return self

    def ask(self, path: str, body: Mapping[str, Any]) -> Any:
        """POST and return what comes with a 200."""
        answer = self.http.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def rank(self, **body: Any) -> Any:
        """The answer of /rank."""
        return self.ask("/rank", body)

    def model(self, name: str) -> Any:
        """What /models says about a model."""
        models = self.http.get("/models").json()["models"]
        return next(model for model in models if model["name"] == name)

    def version(self, name: str, version: int) -> Any:
        """What /models says about a version; None before it is seen."""
        return next((v for v in self.model(name)["versions"] if v["version"] == version), None)

    def metric(self, name: str, **labels: str) -> float:
        """A sample of /metrics; 0 when there is none yet."""
        for line in self.http.get("/metrics").text.splitlines():
            found = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
            if found and found.group(1) == name:
                has = dict(re.findall(r'(\w+)="([^"]*)"', found.group(2) or ""))
                if has == labels:
                    return float(found.group(3))
        return 0.0

    def ask_to_end(self) -> None:
        """Send SIGTERM, once."""
        if not self._asked_to_end:
            self._asked_to_end = True
            self.process.terminate()

    def killed(self) -> None:
        """The test has killed it: how it ended is not looked at."""
        self._killed = True

    def stop(self) -> None:
        """End it as an operator would, and check that it went well, from the first line on."""
        self.http.close()
        try:
            self.ask_to_end()
            self.process.wait(WAIT_S)
        finally:
            self.process.kill()
            self.process.wait()
        if self._killed:
            return
        assert self.process.returncode == 0, self.log()
        unexpected = [
            line
            for line in self.log().splitlines()
            if _SUSPICIOUS.search(line)
            and not any(pattern.search(line) for pattern in self._expected)
        ]
        assert not unexpected, self.log()
