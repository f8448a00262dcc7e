"""The bare loop: `python -m loadtest.bare_loop MODELS/feed200/1 undivided.onnx`.

Reads a line of JSON at a time and answers each with one: `{"candidates": N, "seconds": S}` times
the loop, `{"request": {...}}` scores one `/rank` request, to show that it is the same network.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pyarrow.parquet as pq

from bundle import store
from bundle.rows import Rows

_INPUTS = 32
"""Different requests in memory; the loop goes round them."""

_WARM_UP_S = 0.3
_CONTEXT_VALUES = 100
Feed = dict[str, npt.NDArray[np.generic]]


class Inputs:
    """Encodes as the service does, and repeats the user's columns for every candidate."""

    def __init__(self, bundle_directory: Path) -> None:
        self._bundle = store.load(bundle_directory)
        self._encoder = self._bundle.encoder()
        self._user_of, self._users = self._table("user")
        self._item_of, items = self._table("item")
        self._items = self._encoder.item(items)
        self._rng = np.random.default_rng(0)

    def draw(self, candidates: int) -> list[Feed]:
        """The inputs of as many different requests as the loop goes round."""
        names = self._encoder.layouts["context"].slots
        return [
            self._feed(
                int(self._rng.integers(len(self._users))),
                dict(zip(names, self._rng.integers(_CONTEXT_VALUES, size=len(names)), strict=True)),
                self._rng.choice(len(self._items), candidates, replace=False),
            )
            for _ in range(_INPUTS)
        ]

    def of(self, request: Mapping[str, Any]) -> Feed:
        """The inputs of a `/rank` request."""
        items = [self._item_of[item] for item in request["candidates"]["ids"]]
        return self._feed(self._user_of[request["user"]["id"]], request["context"], items)

    def _feed(
        self, user: int, context: Mapping[str, Any], items: Sequence[int] | npt.NDArray[np.int64]
    ) -> Feed:
        columns = {name: [value] for name, value in context.items()}
        contexts = self._encoder.layouts["context"].pack(columns, 1)
        users = self._encoder.user(self._users[[user]], contexts).take(np.zeros(len(items), int))
        chosen = self._items.take(items)
        return {
            "user_ids": users.ids,
            "user_numbers": users.numbers,
            "item_ids": chosen.ids,
            "item_numbers": chosen.numbers,
        }

    def _table(self, entity: Any) -> tuple[dict[Any, int], Rows]:
        sample = self._bundle.manifest.samples[entity]
        table = pq.read_table(self._bundle.path / sample.file)
        ids = table.column(sample.key).to_pylist()
        layout = self._encoder.layouts[entity]
        columns = {name: table.column(name).to_pylist() for name in layout.slots}
        return {each: row for row, each in enumerate(ids)}, layout.pack(columns, len(ids))


def _timed(
    session: onnxruntime.InferenceSession, feeds: list[Feed], seconds: float
) -> dict[str, float]:
    source = cycle(feeds)
    _run_until(session, source, time.perf_counter() + _WARM_UP_S)
    cpu, started = time.process_time(), time.perf_counter()
    runs = _run_until(session, source, started + seconds)
    return {
        "candidates": len(feeds[0]["item_ids"]),
        "runs": runs,
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu,
    }


def _run_until(session: onnxruntime.InferenceSession, feeds: Iterator[Feed], ends: float) -> int:
    runs = 0
    while time.perf_counter() < ends:
        session.run(None, next(feeds))
        runs += 1
    return runs


def main(bundle_directory: str, graph: str) -> None:
    """Answer the lines of the standard input until it ends."""
    inputs = Inputs(Path(bundle_directory))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    feeds: dict[int, list[Feed]] = {}
    for line in sys.stdin:
        order = json.loads(line)
        if "request" in order:
            answer = session.run(None, inputs.of(order["request"]))[0].tolist()
        else:
            rows = order["candidates"]
            feeds.setdefault(rows, [])
            feeds[rows] = feeds[rows] or inputs.draw(rows)
            answer = _timed(session, feeds[rows], order["seconds"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
