"""Latency at a given rate, open loop: under an even load, and beside requests of another size."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Any

from loadtest.open_loop import Answer, evenly, latency_ms, open_loop, outcomes, poisson
from loadtest.served import Served
from loadtest.server import ServiceFailed

_SHARES = (0.5, 0.7, 0.9)
_SMALL, _BIG = 50, 2_000
_SMALL_SHARE, _BIG_SHARE = 0.3, 0.3
_TURNS = 4


def at_shares_of_capacity(
    service: Served, candidates: int, connections: int, seconds: float
) -> list[dict[str, Any]]:
    """Percentiles at 50, 70 and 90 % of the capacity that is measured just before each."""
    found = []
    requests = service.requests(candidates)
    for share in _SHARES:
        service.warm()
        capacity = service.round(candidates, connections, 2.0).requests_per_s
        answers = open_loop(
            service.url, poisson(requests, share * capacity, seconds, seed=int(100 * share))
        )
        found.append(
            {
                "candidates": candidates,
                "share": share,
                "capacity_requests_per_s": round(capacity, 1),
                "requests_per_s": round(len(answers) / seconds, 1),
                "latency_ms": latency_ms(answers),
                "outcomes": outcomes(answers),
            }
        )
    return found


def big_beside_small(service: Served, connections: int, seconds: float) -> dict[str, Any]:
    """What 2,000-candidate requests do to the latency of 50-candidate requests beside them.

    Both come open loop, each kind at 30 % of what the core could do of it alone; the big ones at
    equal distances, so that there is never more than one of them on a service that keeps up. With
    them and without takes turns, so that a slower machine for a while is slower for both.
    """
    service.warm()
    small_capacity = service.round(_SMALL, connections, 2.0).requests_per_s
    big = service.round(_BIG, 1, 2.0)
    budget_rows = _row_budget()
    alone: list[Answer] = []
    beside: list[Answer] = []
    rate, length = _SMALL_SHARE * small_capacity, seconds / _TURNS
    for turn in range(_TURNS):
        small = poisson(service.requests(_SMALL), rate, length, seed=3 + turn)
        large = evenly(service.requests(_BIG), _BIG_SHARE * big.requests_per_s, length)
        alone += open_loop(service.url, small)
        beside += open_loop(service.url, sorted([*small, *large], key=lambda each: each.due_s))
    before, after = (latency_ms(_of(answers, _SMALL)) for answers in (alone, beside))
    if before["p99"] is None or after["p99"] is None:
        raise ServiceFailed(f"no right answers: {outcomes(alone)}, {outcomes(beside)}")
    budget_ms = None if big.run_ms_per_row is None else budget_rows * big.run_ms_per_row
    return {
        "small_requests_per_s": round(len(alone) / seconds, 1),
        "big_requests_per_s": round((len(beside) - len(alone)) / seconds, 1),
        "row_budget": budget_rows,
        "row_budget_ms": None if budget_ms is None else round(budget_ms, 3),
        "alone_ms": before,
        "beside_ms": after,
        "p99_rise_ms": round(after["p99"] - before["p99"], 3),
        "big_ms": latency_ms(_of(beside, _BIG)),
        "outcomes": {"alone": outcomes(alone), "beside": outcomes(beside)},
    }


def _of(answers: list[Answer], candidates: int) -> list[Answer]:
    return [each for each in answers if each.candidates == candidates]


def _row_budget() -> int:
    """As set, or the default that `python -m service.settings` prints."""
    name = "MULTIRANK_ROW_BUDGET"
    if name in os.environ:
        return int(os.environ[name])
    table = subprocess.run(
        [sys.executable, "-m", "service.settings"], capture_output=True, text=True, check=True
    )
    found = re.search(rf"`{name}` \| `(\d+)`", table.stdout)
    if found is None:
        raise ServiceFailed(f"`python -m service.settings` does not name {name}")
    return int(found.group(1))
