"""The Redis that is made to fail: killed, paused, starved, emptied, and put back as it was."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import redis

from loadtest.chaos.echo_model import ITEMS, item_row
from loadtest.redis_server import free_port, redis_executable
from loadtest.server import ServiceFailed, pause, tail

USER, PASSWORD = "scorer", "secret"
_START_S = 20.0


class RedisUnderTest:
    """A Redis on a free port. The service has a user of its own; we are the default user."""

    def __init__(self, scratch: Path) -> None:
        self.port = free_port()
        self.client = redis.Redis(port=self.port)
        self._log = scratch / "redis.log"
        self._scratch = scratch
        self._process: subprocess.Popen[bytes] | None = None
        self._rows: dict[bytes, bytes] = {}
        self._item_key = b""

    def start(self) -> None:
        """Start it, empty, and let the service's user in.

        Raises:
            ServiceFailed: it does not answer.
        """
        command = [redis_executable(), "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--dir", str(self._scratch), "--save", "", "--appendonly", "no"]
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output)
        give_up = time.monotonic() + _START_S
        while True:
            try:
                self.set_password(PASSWORD)
            except redis.ConnectionError as error:
                if time.monotonic() > give_up or self._process.poll() is not None:
                    raise ServiceFailed(
                        f"Redis did not start; its log:\n{tail(self._log)}"
                    ) from error
                pause(0.02)
            else:
                return

    def command(self, *parts: object) -> None:
        """Send a command as the default user."""
        cast("Any", self.client).execute_command(*parts)

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def set_password(self, password: str) -> None:
        """The service's user has this password from now on."""
        rules = ("reset", "on", f">{password}", "~*", "&*", "+@all")
        self.command("ACL", "SETUSER", USER, *rules)

    def drop_connections(self) -> None:
        """End the connections of the service's user."""
        self.command("CLIENT", "KILL", "USER", USER)

    def keep_rows(self) -> None:
        """Remember all rows, for `restore`."""
        keys = list(self.client.scan_iter("mr:*", count=1000))
        self._rows = dict(zip(keys, cast("list[bytes]", self.client.mget(keys)), strict=True))
        item = next(key for key in keys if b":item:" in key)
        self._item_key = item.rpartition(b":")[0] + b":"

    def restore(self) -> None:
        """Write all rows again, as they were."""
        self.client.mset(self._rows)

    def write_items(self, rows: Mapping[int, bytes]) -> None:
        """Overwrite the rows of some items."""
        self.client.mset({self._item_key + b"%d" % item: row for item, row in rows.items()})

    def kept_items(self, items: range) -> dict[int, bytes]:
        """The remembered rows of some items."""
        return {item: self._rows[self._item_key + b"%d" % item] for item in items}

    def set_value(self, value: float) -> None:
        """Give all items another `value`, in one step with the loss of who listens for changes."""
        now_ms = time.time_ns() // 1_000_000
        items = range(1, ITEMS + 1)
        rows = {self._item_key + b"%d" % n: item_row(n, value, now_ms) for n in items}
        self._rows |= rows
        step = self.client.pipeline(transaction=True)
        cast("Any", step).execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        step.mset(rows)
        step.execute()
