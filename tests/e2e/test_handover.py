"""One instance takes over from another under load: no client sees an error."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.conftest import Serve
from tests.e2e.asking import REQUEST
from tests.published import ModelsDirectory
from tests.servers import WAIT_S, environment, eventually


@contextmanager
def load(url: str) -> Iterator[Counter[object]]:
    """Clients that keep their connection, and clients that open one for every request."""
    outcomes: Counter[object] = Counter()
    enough = threading.Event()

    def ask(client: httpx.Client) -> None:
        try:
            outcomes[client.post("/rank", json=REQUEST).status_code] += 1
        except httpx.HTTPError as error:
            outcomes[repr(error)] += 1

    def keep() -> None:
        with httpx.Client(base_url=url, timeout=WAIT_S) as client:
            while not enough.is_set():
                ask(client)
                time.sleep(0.005)

    def reopen() -> None:
        while not enough.is_set():
            with httpx.Client(base_url=url, timeout=WAIT_S) as client:
                ask(client)

    with ThreadPoolExecutor(4) as clients:
        running = [clients.submit(each) for each in (keep, keep, reopen, reopen)]
        try:
            yield outcomes
        finally:
            enough.set()
    for each in running:
        each.result()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_instance_takes_over_the_port(
    served_models: Path, serve: Serve, workers: int
) -> None:
    first = serve(served_models, reuse_port=True, workers=workers)
    port = int(first.url.rpartition(":")[2])
    with load(first.url) as outcomes:
        eventually(lambda: outcomes[200] > 20)
        second = serve(served_models, reuse_port=True, workers=workers, at_port=port)
        first.ask_to_end()
        first.process.wait(WAIT_S)
        several = outcomes[200] + 50
        eventually(lambda: outcomes[200] > several)
    assert set(outcomes) == {200}
    assert second.url == first.url


@pytest.mark.parametrize("workers", [1, 2])
def test_a_connection_that_is_kept_is_answered_once_more_and_told_to_go(
    served_models: Path, serve: Serve, workers: int
) -> None:
    service = serve(served_models, workers=workers)
    connection = http.client.HTTPConnection(service.url.removeprefix("http://"), timeout=WAIT_S)
    body = json.dumps(REQUEST)
    connection.request("POST", "/rank", body, {"Content-Type": "application/json"})
    first = connection.getresponse()
    assert (first.status, first.getheader("Connection")) == (200, None)
    first.read()
    service.http.close()

    service.ask_to_end()
    time.sleep(0.3)
    assert connection.sock is not None  # it would be opened anew
    connection.request("POST", "/rank", body, {"Content-Type": "application/json"})
    last = connection.getresponse()
    assert (last.status, last.getheader("Connection")) == (200, "close")
    last.read()
    connection.close()
    service.process.wait(WAIT_S)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_instance_that_waits_for_a_deployment_can_be_stopped(
    models_dir: ModelsDirectory, workers: int
) -> None:
    """It never opens its port, as another may have it."""
    (models_dir.model / "deployment.json").write_text("{")
    process = subprocess.Popen(
        [sys.executable, "-m", "multirank", "serve", "--workers", str(workers)],
        env=environment(models_dir=models_dir.path, reuse_port=True, port=0),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "deployment refused" in line:
            break
    process.terminate()
    _, said = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, said
    assert "killed" not in said
    assert "cannot accept" not in said
