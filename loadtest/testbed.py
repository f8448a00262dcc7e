"""The test bed: two cores, the workload, a Redis, the bare loop, and services as they are wanted.

first core    load generator (this process), Redis
last core     the bare loop, the services: one of them at a time has work
"""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from bundle.manifest import parse
from bundle.stages import Stages
from loadtest import workload
from loadtest.bare import Bare, bare_loop
from loadtest.pinned import cores
from loadtest.prepared import ITEMS, TASKS, Feed
from loadtest.redis_server import redis_with_features
from loadtest.served import Served, served
from loadtest.server import ServiceFailed
from loadtest.workload import MODEL, Workload

_FLOAT32_BYTES = 4
_TOLERANCE = 1e-3
"""Between served and undivided scores; features are float32, tensors may be kept as float16."""


@dataclass
class Testbed:
    """What the measurements run on.

    Attributes:
        bare: the bare loop.
        settings: of every service, by field name.
    """

    workload: Workload
    bare: Bare
    redis_url: str
    core: int
    scratch: Path
    stack: ExitStack
    _services: dict[str, Served] = field(default_factory=dict)

    def service(self, name: str, **settings: object) -> Served:
        """The service of that name, started when it is asked for the first time, and warm."""
        if name not in self._services:
            log = self.scratch / f"{name}.log"
            running = served(self.workload, self.redis_url, self.core, log, **settings)
            self._services[name] = self.stack.enter_context(running)
            self._services[name].warm()
        return self._services[name]

    def warm(self) -> Served:
        """A service with the settings of the environment; every item tensor is cached."""
        return self.service("warm")

    def half_warm(self) -> Served:
        """A service whose item cache holds half of the items."""
        manifest = parse((self.workload.bundle / "manifest.json").read_bytes())
        assert isinstance(manifest.stages, Stages)  # feed200 is
        stored = ITEMS * manifest.stages.item.output_width * _FLOAT32_BYTES
        kept = self.warm().metrics()["item_cache_bytes"]  # less, where tensors are kept smaller
        return self.service("half", item_cache_bytes=int(min(stored, kept or stored) / 2))

    def cold(self) -> Served:
        """A service without an item cache."""
        return self.service("cold", item_cache_bytes=0)

    def check_same_network(self) -> float:
        """The largest difference between a served score and the undivided graph's.

        Raises:
            ServiceFailed: it is more than rounding.
        """
        largest = 0.0
        for request in Feed(seed=2).draw(8, 100):
            answer = self.warm().ask(request)
            expected = np.array(self.bare.scores(request.message.partition(b"\r\n\r\n")[2]))
            row_of = {item: row for row, item in enumerate(request.candidates.tolist())}
            rows = [row_of[item] for item in answer["ids"]]
            scores = np.stack([answer["tasks"][task] for task in TASKS], axis=1)
            largest = max(largest, float(np.abs(scores - expected[rows]).max()))
        if largest > _TOLERANCE:
            raise ServiceFailed(f"served scores are {largest} from the undivided graph's")
        return largest


@contextmanager
def testbed(directory: Path) -> Iterator[Testbed]:
    """Build the workload if need be, start Redis and the bare loop; stop everything at the end.

    Raises:
        BuildFailed, ServiceFailed.
    """
    client_core, server_core = cores()
    feed = workload.ready(directory)
    os.sched_setaffinity(0, {client_core})
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="multirank-bench-")))
        redis_url = stack.enter_context(
            redis_with_features(feed.models, MODEL, client_core, scratch)
        )
        bare = stack.enter_context(bare_loop(feed, server_core, scratch))
        yield Testbed(feed, bare, redis_url, server_core, scratch, stack)


def circumstances() -> dict[str, Any]:
    """When and on what: date, machine, versions, load before the start, settings that were set."""
    models = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit.stdout.strip(),
        "cpu": next(iter(models), platform.machine()),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": round(os.getloadavg()[0], 2),
        "python": sys.version.split()[0],
        "onnxruntime": onnxruntime.__version__,
        "settings": {n: v for n, v in os.environ.items() if n.startswith("MULTIRANK_")},
    }
