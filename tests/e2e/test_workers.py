"""Several worker processes behind one port: real processes, killed and stopped under load."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

import orjson
import psutil
import pytest

from tests.conftest import Serve
from tests.e2e.asking import GOOD, JSON
from tests.published import MODEL
from tests.servers import WAIT_S, Service, environment, eventually

WORKERS = 3
BODY = orjson.dumps(GOOD)


@pytest.fixture
def crew(served_models: Path, serve: Serve) -> Service:
    return serve(served_models, workers=WORKERS, admin_token="a secret")


def processes(service: Service) -> list[psutil.Process]:
    """The workers that run now, by index."""

    def index(worker: psutil.Process) -> int:
        line = worker.cmdline()
        return int(line[line.index("--index") + 1])

    return sorted(psutil.Process(service.process.pid).children(), key=index)


def connection(service: Service) -> http.client.HTTPConnection:
    address = urlsplit(service.url)
    assert address.hostname is not None
    return http.client.HTTPConnection(address.hostname, address.port, timeout=WAIT_S)


def connection_of_its_own(service: Service) -> closing[http.client.HTTPConnection]:
    return closing(connection(service))


def rank(open_connection: http.client.HTTPConnection) -> int:
    """The status of one answer, on a connection that stays open."""
    open_connection.request("POST", "/rank", BODY, JSON)
    answer = open_connection.getresponse()
    answer.read()
    return answer.status


def local_port(open_connection: http.client.HTTPConnection) -> int:
    port: int = open_connection.sock.getsockname()[1]
    return port


def clients_of(worker: psutil.Process) -> set[int]:
    """Ports of the clients that have a connection to the worker."""
    return {each.raddr.port for each in worker.net_connections("tcp") if each.raddr}


@dataclass
class Client(threading.Thread):
    """Asks on one connection after the other, each kept until it breaks."""

    service: Service
    statuses: list[int] = field(default_factory=list)
    broken: list[int] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        super().__init__()

    __hash__ = threading.Thread.__hash__

    def run(self) -> None:
        while not self.ended.is_set():
            mine = connection(self.service)
            mine.connect()
            port = local_port(mine)
            try:
                while not self.ended.is_set():
                    self.statuses.append(rank(mine))
            except (ConnectionError, http.client.HTTPException):
                self.broken.append(port)
            finally:
                mine.close()


def test_a_killed_worker_takes_nothing_but_its_own_connections_with_it(crew: Service) -> None:
    clients = [Client(crew) for _ in range(8)]
    for client in clients:
        client.start()
    try:
        eventually(lambda: all(client.statuses for client in clients))
        victim = max(processes(crew), key=lambda each: len(clients_of(each)))
        index = processes(crew).index(victim)
        doomed = clients_of(victim)
        assert doomed
        victim.kill()
        crew.expect_in_log(rf"ERROR .*: worker {index} was ended by SIGKILL; another .* in 0\.1 s")
        statuses = []
        while f"worker {index} serves again" not in crew.log():  # and others serve meanwhile
            fresh = connection(crew)
            statuses.append(rank(fresh))
            fresh.close()
        before = sum(len(client.statuses) for client in clients)
        eventually(lambda: sum(len(client.statuses) for client in clients) > before + 50)
    finally:
        for client in clients:
            client.ended.set()
        for client in clients:
            client.join()
    assert statuses
    assert set(statuses) == {200}
    assert {status for client in clients for status in client.statuses} == {200}
    assert {port for client in clients for port in client.broken} <= doomed
    assert len(processes(crew)) == WORKERS

    processes(crew)[index].kill()  # soon again: it waits longer
    crew.expect_in_log(rf"ERROR .*: worker {index} was ended by SIGKILL; another .* in 0\.2 s")
    eventually(lambda: crew.log().count(f"worker {index} serves again") == 2)
    assert crew.http.get("/readyz").status_code == 200


def test_metrics_are_those_of_all_workers_and_survive_a_worker(crew: Service) -> None:
    def answered() -> float:
        return crew.metric("multirank_answers_total", route="rank", status="200", code="ok")

    opened = [connection(crew) for _ in range(24)]
    assert {rank(each) for each in opened} == {200}
    busy = processes(crew)
    connections = [len(clients_of(worker)) for worker in busy]
    assert max(connections) <= min(connections) + 1
    assert answered() == len(opened)
    state = {"model": MODEL, "version": "1", "state": "ready"}
    assert crew.metric("multirank_version_state", **state) == WORKERS
    assert crew.metric("multirank_version_state", **state | {"state": "loading"}) == 0
    assert crew.metric("multirank_request_seconds_count", route="rank") == len(opened)

    index = processes(crew).index(busy[0])
    busy[0].kill()
    crew.expect_in_log(f"worker {index} was ended by SIGKILL")
    crew.expect_in_log(f"worker {index} serves again")
    for each in opened:
        each.close()
    assert answered() == len(opened)
    assert crew.metric("multirank_version_state", **state) == WORKERS
    assert crew.metric("multirank_leases", model=MODEL, version="1") == 0


def test_workers_have_the_settings_of_the_environment(crew: Service) -> None:
    for _ in range(WORKERS):  # a connection each
        with connection_of_its_own(crew) as open_connection:
            open_connection.request("GET", "/admin/x", headers={"Authorization": "Bearer a secret"})
            assert open_connection.getresponse().status == 404


def test_every_line_says_which_process_wrote_it(crew: Service) -> None:
    assert "INFO supervisor multirank.supervisor: 3 workers running on http" in crew.log()
    for index in range(WORKERS):
        assert f"INFO worker-{index} service.lifecycle.registry: {MODEL} version 1 is live" in (
            crew.log()
        )


def test_workers_end_with_their_supervisor(served_models: Path, tmp_path: Path) -> None:
    service = Service(served_models, tmp_path, {"workers": 2})
    service.http.close()
    workers = processes(service)
    service.process.kill()
    service.process.wait()
    _, alive = psutil.wait_procs(workers, WAIT_S)
    assert not alive


def test_ctrl_c_ends_all_and_leaves_nothing(served_models: Path, tmp_path: Path) -> None:
    service = Service(served_models, tmp_path, {"workers": 2}).wait_ready()
    service.http.close()
    workers = processes(service)
    run_dir = Path(workers[0].cmdline()[workers[0].cmdline().index("--run-dir") + 1])
    assert run_dir.is_dir()
    service.process.send_signal(signal.SIGINT)
    assert service.process.wait(WAIT_S) == 0
    assert not any(worker.is_running() for worker in workers)
    assert not run_dir.exists()
    assert "Traceback" not in service.log()


@pytest.mark.parametrize("host", ["127.0.0.1", "192.0.2.1"])
def test_an_address_that_cannot_be_had(served_models: Path, host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = serve_and_fail(models_dir=served_models, port=port, host=host, workers=2)

    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"cannot listen on {host} port {port}: ")


def test_a_worker_that_cannot_start_ends_the_service(served_models: Path, tmp_path: Path) -> None:
    (tmp_path / "httptools.py").write_text("raise ImportError('damaged')")  # for workers alone
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    ended = serve_and_fail({"PYTHONPATH": path}, models_dir=served_models, port=0, workers=2)

    assert ended.returncode == 1
    assert "ImportError: damaged" in ended.stderr
    assert re.search(
        r"^the service cannot start: worker \d ended with status 1$", ended.stderr, re.MULTILINE
    )


def serve_and_fail(
    variables: Mapping[str, str] = MappingProxyType({}), **settings: object
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "multirank", "serve"]
    whole = environment(**settings) | dict(variables)
    return subprocess.run(command, env=whole, capture_output=True, text=True, timeout=WAIT_S)
