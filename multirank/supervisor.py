"""The supervisor of `multirank serve --workers N`: starts N workers, and keeps them going.

It accepts connections and hands them to the workers (`port.py`), and touches no request.
A worker that dies is started again, at once the first time, later and later when that does not
help; SIGTERM and SIGINT go to all workers, which answer what they have accepted.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from prometheus_client.multiprocess import mark_process_dead

from multirank.port import Line, Port, listening_socket
from multirank.run_directory import run_directory
from service.settings import PREFIX, Settings
from service.worker import Worker

log = logging.getLogger(__name__)

_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.1, 30.0
_STEADY_S = 60.0
"""A worker that served this long has nothing to do with the deaths before it."""
_KILL_AFTER_DRAIN_S = 10.0


class CannotStart(Exception):
    """The address cannot be had, or a worker ended before the service was up."""


def supervise(
    settings: Settings, options: Mapping[str, object], count: int, drain_s: float
) -> None:
    """Run `count` workers until SIGTERM or SIGINT.

    Args:
        options: settings by field name that do not come from the environment.
        drain_s: longest that a worker takes to answer what it has accepted.

    Raises:
        CannotStart: the address cannot be had, or a worker ends before all are up.
    """
    host, port = settings.host, settings.port
    try:
        listener = listening_socket(host, port, settings.reuse_port)
    except OSError as error:
        raise CannotStart(f"cannot listen on {host} port {port}: {error.strerror}") from error
    url = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
    with listener, run_directory() as run_dir:
        asyncio.run(_run(listener, url, count, run_dir, _environment(options), drain_s))


async def _run(
    listener: socket.socket,
    url: str,
    count: int,
    run_dir: Path,
    environment: Mapping[str, str],
    drain_s: float,
) -> None:
    await _Supervisor(Port(listener), count, run_dir, environment, drain_s).run(url)


def _environment(options: Mapping[str, object]) -> dict[str, str]:
    """Of the workers: this one, with what came as options, and where modules are found."""
    given = {f"{PREFIX}{name}".upper(): str(value) for name, value in options.items()}
    kept = {name: v for name, v in os.environ.items() if name.upper() not in given}
    return {**kept, **given, "PYTHONPATH": os.pathsep.join(sys.path)}


class _Supervisor:
    def __init__(
        self,
        port: Port,
        count: int,
        run_dir: Path,
        environment: Mapping[str, str],
        drain_s: float,
    ) -> None:
        self._port = port
        self._workers = [Worker(index, count, run_dir) for index in range(count)]
        self._run_dir = run_dir
        self._environment = environment
        self._drain_s = drain_s
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()

    async def run(self, url: str) -> None:
        """Start all workers and keep them; returns when all have ended as told.

        Raises:
            CannotStart: one ended before the port was open; the others are stopped.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        try:
            await asyncio.gather(*map(self._start_first, self._workers))
            if not self._stopping.is_set():
                self._port.open()
                log.info("%d workers running on %s", len(self._workers), url)
            await asyncio.gather(*map(self._keep, self._workers))
        finally:
            self._stop(signal.SIGTERM)
            await asyncio.gather(*(each.wait() for each in self._running.values()))

    async def _start_first(self, worker: Worker) -> None:
        if not await self._start(worker) and not self._stopping.is_set():
            status = await self._running[worker.index].wait()
            raise CannotStart(f"the service cannot start: worker {worker.index} {_ended(status)}")

    async def _keep(self, worker: Worker) -> None:
        delay_s, since = 0.0, time.monotonic()
        while True:
            status = await self._running[worker.index].wait()
            if self._stopping.is_set():
                return
            mark_process_dead(worker.index, str(self._run_dir))  # type: ignore[no-untyped-call]
            if time.monotonic() - since > _STEADY_S:
                delay_s = 0.0
            delay_s = min(max(2 * delay_s, _FIRST_DELAY_S), _LONGEST_DELAY_S)
            log.error(
                "worker %d %s; another starts in %.1f s", worker.index, _ended(status), delay_s
            )
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay_s)
                return
            since = time.monotonic()
            if await self._start(replace(worker, replaces=True)):
                log.info("worker %d serves again", worker.index)

    async def _start(self, worker: Worker) -> bool:
        """Start a worker and let it have connections; False when it ended instead."""
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with there:
            process = await asyncio.create_subprocess_exec(
                *_command(worker, there.fileno()),
                env=self._environment,
                pass_fds=(there.fileno(),),
                start_new_session=True,  # Ctrl-C comes through the supervisor alone
            )
        self._running[worker.index] = process
        if self._stopping.is_set():
            _send(process, signal.SIGTERM)
        line = Line(here)
        if not await line.first_report():
            here.close()
            return False
        self._port.join(line)
        return True

    def _stop(self, number: signal.Signals) -> None:
        if not self._stopping.is_set():
            self._stopping.set()
            self._port.close()
            log.info("%s: every worker answers what it has accepted, then ends", number.name)
            loop = asyncio.get_running_loop()
            loop.call_later(self._drain_s + _KILL_AFTER_DRAIN_S, self._kill)
        for process in self._running.values():
            _send(process, number)

    def _kill(self) -> None:
        for index, process in self._running.items():
            if process.returncode is None:
                log.error("worker %d does not end: killed", index)
                _send(process, signal.SIGKILL)


def _send(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):  # it has ended, and was not waited for yet
            process.send_signal(number)


def _ended(status: int) -> str:
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended with status {status}"


def _command(worker: Worker, channel: int) -> list[str]:
    """What starts `worker`; `channel` is a socket that it inherits."""
    # -P: the supervisor's import path is in PYTHONPATH, the working directory is not to shadow it
    return [
        *(sys.executable, "-P", "-m", "multirank.worker"),
        *("--index", str(worker.index), "--count", str(worker.count)),
        *("--run-dir", str(worker.run_dir), "--channel", str(channel)),
        *(("--replaces",) if worker.replaces else ()),
    ]
