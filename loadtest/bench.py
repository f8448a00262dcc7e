"""`python -m loadtest.bench`: the reference workload `feed200`, bare and served, on the same core.

    throughput   bare and served in turn, by request size and state of the item cache
    small        sixteen clients with 20 candidates each, with batching and without
    latency      open loop, at 50, 70 and 90 % of capacity
    beside       50-candidate requests beside 2,000-candidate requests
    overload     open loop, at twice the capacity

Tables first; the last line is one JSON object, the result for 200 candidates with a warm cache.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from loadtest import bench_report as report
from loadtest.charts import chart
from loadtest.latency import at_shares_of_capacity, big_beside_small
from loadtest.overload import overload
from loadtest.server import ServiceFailed, end_between_steps
from loadtest.small_requests import small_requests
from loadtest.testbed import Testbed, circumstances, testbed
from loadtest.throughput import best_connections, compare, cost_per_candidate
from loadtest.workload import BuildFailed

_SIZES = (50, 200, 500, 1_000)
_REFERENCE = 200
_CACHES = ("warm", "half", "cold")


class Part(StrEnum):
    """What can be measured by itself."""

    throughput = "throughput"
    small = "small"
    latency = "latency"
    beside = "beside"
    overload = "overload"


def bench(
    workload: Annotated[
        Path, typer.Option(help="Directory of the workload; built when it is not there")
    ] = Path(".data/feed200"),
    results: Annotated[Path, typer.Option(help="Directory for bench.json and bench.svg")] = Path(
        "loadtest/results"
    ),
    rounds: Annotated[int, typer.Option(min=1, help="Of bare and served in turn")] = 5,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each measurement of a round")] = 2.0,
    latency_seconds: Annotated[float, typer.Option(min=1, help="Of each open loop")] = 20.0,
    overload_seconds: Annotated[float, typer.Option(min=1, help="At twice the capacity")] = 60.0,
    only: Annotated[list[Part] | None, typer.Option(help="These parts alone")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="200 candidates, warm and cold, 3 rounds; no files")
    ] = False,
) -> None:
    """Measure what multirank makes of one core, beside bare onnxruntime on the same core."""
    parts = set(only or ([Part.throughput] if quick else Part))
    about = circumstances()
    report.show_circumstances(about)
    found: dict[str, Any] = {**about}
    try:
        with testbed(workload) as bed:
            found["largest_score_difference"] = bed.check_same_network()
            tried = best_connections(bed.warm(), _REFERENCE, 0.3 if quick else 1.0)
            connections = max(tried, key=tried.__getitem__)
            report.say(
                f"connections: {connections}; items/s with each number of them: "
                + ", ".join(f"{n}: {items_per_s:,.0f}" for n, items_per_s in tried.items())
            )
            found["connections"] = connections
            if Part.throughput in parts:
                sizes, caches = ((_REFERENCE,), ("warm", "cold")) if quick else (_SIZES, _CACHES)
                times = min(rounds, 3) if quick else rounds
                compared = compare(bed, sizes, caches, connections, times, seconds)
                found["throughput"] = [each.result() for each in compared]
                report.show_throughput(found["throughput"])
                found["cost"] = cost_per_candidate(found["throughput"], "warm")
                report.show_cost(found["cost"])
            _measure_more(bed, parts, found, rounds, seconds, latency_seconds, overload_seconds)
    except (BuildFailed, ServiceFailed) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    if not quick:
        _save(found, results)
    print(json.dumps(_last_line(found)), flush=True)


def _measure_more(
    bed: Testbed,
    parts: set[Part],
    found: dict[str, Any],
    rounds: int,
    seconds: float,
    latency_seconds: float,
    overload_seconds: float,
) -> None:
    connections = found["connections"]
    if Part.small in parts:
        found["small"] = small_requests(bed, rounds, seconds)
        report.show_small_requests(found["small"])
    if Part.latency in parts:
        found["latency"] = at_shares_of_capacity(
            bed.warm(), _REFERENCE, connections, latency_seconds
        )
        report.show_latency(found["latency"])
    if Part.beside in parts:
        found["beside"] = big_beside_small(bed.warm(), connections, latency_seconds)
        report.show_big_beside_small(found["beside"])
    if Part.overload in parts:
        found["overload"] = overload(bed.warm(), _REFERENCE, connections, overload_seconds)
        report.show_overload(found["overload"])


def _save(found: dict[str, Any], results: Path) -> None:
    results.mkdir(parents=True, exist_ok=True)
    (results / "bench.json").write_text(json.dumps(found, indent=1) + "\n")
    if "throughput" in found:
        title = f"feed200 on one core: {found['cpu']}, {found['date'][:10]}"
        (results / "bench.svg").write_text(chart(found["throughput"], title))


def _last_line(found: dict[str, Any]) -> dict[str, Any]:
    """The reference result; without it, what was measured."""
    throughput: Sequence[dict[str, Any]] = found.get("throughput", ())
    for each in throughput:
        if (each["candidates"], each["cache"]) == (_REFERENCE, "warm"):
            return {name: v for name, v in each.items() if not name.endswith("_range")}
    return found


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command()(bench)

if __name__ == "__main__":
    end_between_steps()
    app()
