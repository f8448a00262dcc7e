"""Overload: twice the capacity, open loop, then half of it, without a break in between."""

from __future__ import annotations

import time
from typing import Any

from loadtest.measurements import percentiles
from loadtest.open_loop import Answer, Arrival, latency_ms, open_loop, outcomes, poisson
from loadtest.served import Served

_FACTOR = 2.0
_NORMAL = 0.5
_NORMAL_S = 5.0
_RECOVERY_S = 2.0
"""After this time latency is to be what it was."""

_EXPECTED = {"ok", "degraded", "429", "504"}


def overload(service: Served, candidates: int, connections: int, seconds: float) -> dict[str, Any]:
    """What becomes of the answers, of memory, and of latency afterwards."""
    service.warm()
    capacity = service.round(candidates, connections, 3.0).requests_per_s
    requests = service.requests(candidates)
    normal = poisson(requests, _NORMAL * capacity, _NORMAL_S, seed=4)
    before = open_loop(service.url, normal)
    service.warm()
    flood = poisson(requests, _FACTOR * capacity, seconds, seed=5)
    calm = poisson(requests, _NORMAL * capacity, _RECOVERY_S + _NORMAL_S, seed=6)
    resident: list[tuple[float, int]] = [(0.0, service.resident_bytes())]

    def watch(now_s: float) -> None:
        if now_s - resident[-1][0] >= 1.0:
            resident.append((now_s, service.resident_bytes()))

    client = time.process_time()
    answers = open_loop(
        service.url, flood + [Arrival(each.due_s + seconds, each.request) for each in calm], watch
    )
    client = time.process_time() - client
    flooded = [each for each in answers if each.due_s < seconds]
    recovered = [each for each in answers if each.due_s >= seconds + _RECOVERY_S]
    good = [each for each in flooded if _good(each) and _answered_s(each) < seconds]
    settled = [size for now_s, size in resident if now_s >= min(10.0, seconds / 4)]
    return {
        "candidates": candidates,
        "seconds": seconds,
        "capacity_requests_per_s": round(capacity, 1),
        "offered_requests_per_s": round(len(flood) / seconds, 1),
        "outcomes": outcomes(flooded),
        "unexpected": sum(each.outcome not in _EXPECTED for each in answers),
        "goodput_requests_per_s": round(len(good) / seconds, 1),
        "goodput_over_capacity": round(len(good) / seconds / capacity, 3),
        "latency_ms": latency_ms(flooded),
        "refusal_ms": percentiles([each.latency_ms for each in flooded if not _good(each)]),
        "sent_late_ms": percentiles([each.sent_late_ms for each in flooded]),
        "client_share": round(client / (calm[-1].due_s + seconds), 2),
        "resident_mb": {
            "before": _mb(resident[0][1]),
            "settled": _mb(settled[0]),
            "most": _mb(max(size for _, size in resident)),
            "after": _mb(service.resident_bytes()),
        },
        "before_ms": latency_ms(before),
        "recovered_ms": latency_ms(recovered),
        "recovered_outcomes": outcomes(recovered),
    }


def _good(answer: Answer) -> bool:
    return answer.outcome in ("ok", "degraded")


def _answered_s(answer: Answer) -> float:
    return answer.due_s + answer.latency_ms / 1000


def _mb(size: int) -> float:
    return round(size / 1e6, 1)
