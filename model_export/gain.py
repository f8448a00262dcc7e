"""The gain of the stages: what a request costs with them, and what the network costs undivided.

Undivided, every part is computed for every candidate, from the user's features repeated: what one
graph over per-candidate inputs does, and what most servers are given. In stages the user's part is
computed once a request, and an item's only if its tensor is not in the server's cache. The price is
the memory of these tensors.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

import numpy as np

from bundle.encoding import Encoder
from model_export.parity import Graphs
from model_export.training.run_directory import Examples

CANDIDATES = 200
_ROUNDS = 15


@dataclass(frozen=True)
class Gain:
    """Milliseconds of processor time for one user's CANDIDATES, inputs encoded.

    Attributes:
        undivided_ms: all parts for every candidate.
        cold_ms: in stages, no item tensor being cached. cached_ms: all being cached.
        item_tensor_bytes: what caching an item costs.
    """

    undivided_ms: float
    cold_ms: float
    cached_ms: float
    item_tensor_bytes: int


def measure(graphs: Graphs, encoder: Encoder, examples: Examples) -> Gain:
    """Time the graphs of three stages in turn; the median of several rounds of each."""
    repeated = np.zeros(CANDIDATES, np.int64)
    one = encoder.user(examples.users[:1], examples.contexts[:1])
    items = encoder.item(examples.items[np.arange(CANDIDATES) % len(examples.items)])
    tensors = graphs.side("item", items)
    same_user, each_its_own = one.take(repeated), np.arange(CANDIDATES)
    seconds = _timed(
        {
            "undivided": lambda: graphs.scores(same_user, items, each_its_own),
            "cold": lambda: graphs.scores(one, items, repeated),
            "cached": lambda: graphs.joint(graphs.side("user", one), tensors, repeated),
        }
    )
    milliseconds = {name: 1000 * each for name, each in seconds.items()}
    return Gain(
        undivided_ms=milliseconds["undivided"],
        cold_ms=milliseconds["cold"],
        cached_ms=milliseconds["cached"],
        item_tensor_bytes=tensors[0].nbytes,
    )


def _timed(runs: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(_ROUNDS):
        for name, run in runs.items():
            started = time.thread_time()
            run()
            found[name].append(time.thread_time() - started)
    return {name: median(each) for name, each in found.items()}
