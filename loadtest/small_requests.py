"""Sixteen clients with 20 candidates each: with batching across requests, and without."""

from __future__ import annotations

from statistics import median
from typing import Any

from loadtest.server import pause
from loadtest.testbed import Testbed

_CLIENTS, _CANDIDATES = 16, 20


def small_requests(bed: Testbed, rounds: int, seconds: float) -> dict[str, Any]:
    """Throughput of the same server with its own row budget, and with that of one request."""
    services = {
        "batched": bed.warm(),
        "single": bed.service("single", row_budget=_CANDIDATES),
    }
    found: dict[str, list[float]] = {name: [] for name in services}
    cpu_ms: dict[str, list[float]] = {name: [] for name in services}
    for _ in range(rounds):
        for name, service in services.items():
            service.warm()
            each = service.round(_CANDIDATES, _CLIENTS, seconds)
            found[name].append(each.requests_per_s)
            cpu_ms[name].append(each.cpu_ms)
            pause(0)
    return {
        "clients": _CLIENTS,
        "candidates": _CANDIDATES,
        **{f"{name}_requests_per_s": round(median(v), 1) for name, v in found.items()},
        **{f"{name}_cpu_ms": round(median(v), 3) for name, v in cpu_ms.items()},
        "gain": round(median(found["batched"]) / median(found["single"]), 3),
        "cpu_gain": round(median(cpu_ms["single"]) / median(cpu_ms["batched"]), 3),
    }
