"""What people read of a benchmark: tables on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

_UNDISTURBED = 0.97
"""Share of its core that a loop gets on a quiet machine, at least."""

_console = Console(highlight=False, width=170)


def show_circumstances(about: Mapping[str, Any]) -> None:
    """One line on when and where, one on what differs from the defaults."""
    _console.print(
        f"{about['date']}, {about['cpu']}, {about['cores']} cores, "
        f"load average {about['load_average']}, commit {about['commit']}"
    )
    if about["settings"]:
        _console.print(f"settings: {about['settings']}", markup=False)


def show_throughput(results: Sequence[Mapping[str, Any]]) -> None:
    """Bare and served, side by side: medians, with [min-max] over the rounds."""
    table = _table(
        "candidates",
        "cache",
        "bare items/s",
        "served items/s",
        "served / bare",
        "CPU ms bare",
        "served",
        "bare / served",
        "hits",
        "client",
        "answers",
    )
    for each in results:
        table.add_row(
            str(each["candidates"]),
            each["cache"],
            _ranged(each, "bare_items_per_s", ",.0f"),
            _ranged(each, "served_items_per_s", ",.0f"),
            _ranged(each, "ratio", ".2f"),
            f"{each['bare_cpu_ms']:.2f}",
            f"{each['served_cpu_ms']:.2f}",
            _ranged(each, "cpu_ratio", ".2f"),
            f"{each['hit_rate']:.0%}",
            f"{each['client_share']:.0%}",
            _counts(each["outcomes"]),
        )
    _console.print(table)
    least = min(each["bare_core_share"] for each in results)
    if least < _UNDISTURBED:
        _console.print(
            f"The bare loop, which never waits, got down to {least:.0%} of its core: other "
            "processes ran there. Believe the ratio of CPU times, not that of items/s."
        )


def show_latency(results: Sequence[Mapping[str, Any]]) -> None:
    """Percentiles by load."""
    table = _table("load", "requests/s", "p50 ms", "p99 ms", "p99.9 ms", "answers")
    for each in results:
        table.add_row(
            f"{each['share']:.0%} of {each['capacity_requests_per_s']:.0f}",
            f"{each['requests_per_s']:.1f}",
            *_percentiles(each["latency_ms"]),
            _counts(each["outcomes"]),
        )
    _console.print(table)


def show_cost(cost: Mapping[str, Any]) -> None:
    """Cost of a candidate by request size."""
    table = _table("µs a candidate", *(f"N={size}" for size in cost["wall_us"]))
    table.add_row("wall", *(f"{us:.2f}" for us in cost["wall_us"].values()))
    table.add_row("CPU", *(f"{us:.2f}" for us in cost["cpu_us"].values()))
    _console.print(table)


def show_small_requests(found: Mapping[str, Any]) -> None:
    """Batching across requests, and none."""
    _console.print(
        f"{found['clients']} clients of {found['candidates']} candidates: "
        f"{found['batched_requests_per_s']:.0f} requests/s batched, "
        f"{found['single_requests_per_s']:.0f} one request a run: {found['gain']:.2f} times; "
        f"CPU {found['batched_cpu_ms']:.2f} and {found['single_cpu_ms']:.2f} ms a request: "
        f"{found['cpu_gain']:.2f} times"
    )


def show_big_beside_small(found: Mapping[str, Any]) -> None:
    """The 50-candidate requests, alone and beside big ones."""
    table = _table("50 candidates", "requests/s", "p50 ms", "p99 ms", "p99.9 ms", "answers")
    rate = f"{found['small_requests_per_s']:.1f}"
    for name, key in (("alone", "alone"), ("beside 2,000 candidates", "beside")):
        table.add_row(
            name, rate, *_percentiles(found[f"{key}_ms"]), _counts(found["outcomes"][key])
        )
    _console.print(table)
    budget = found["row_budget_ms"]
    _console.print(
        f"p99 rises by {found['p99_rise_ms']:.2f} ms; a run of the row budget "
        f"({found['row_budget']} rows) takes {'-' if budget is None else f'{budget:.2f}'} ms; "
        f"{found['big_requests_per_s']:.1f} big ones a second, p50 {_ms(found['big_ms']['p50'])}"
    )


def show_overload(found: Mapping[str, Any]) -> None:
    """Twice the capacity, and what comes after."""
    _console.print(
        f"overload: {found['offered_requests_per_s']:.0f} requests/s for {found['seconds']:.0f} s "
        f"on a capacity of {found['capacity_requests_per_s']:.0f}: {_counts(found['outcomes'])}; "
        f"unexpected {found['unexpected']}; goodput {found['goodput_requests_per_s']:.0f}/s, "
        f"{found['goodput_over_capacity']:.0%} of capacity"
    )
    _console.print(
        f"load generator: {found['client_share']:.0%} of its core, "
        f"p99 of its own delay {_ms(found['sent_late_ms']['p99'])} ms"
    )
    memory = found["resident_mb"]
    _console.print("resident MB: " + ", ".join(f"{k} {v:.0f}" for k, v in memory.items()))
    table = _table("latency", "p50 ms", "p99 ms", "p99.9 ms")
    table.add_row("50 % load, before", *_percentiles(found["before_ms"]))
    table.add_row("overload, right answers", *_percentiles(found["latency_ms"]))
    table.add_row("overload, refusals", *_percentiles(found["refusal_ms"]))
    table.add_row("50 % load, from 2 s after", *_percentiles(found["recovered_ms"]))
    _console.print(table)


def say(line: str) -> None:
    """A line of its own."""
    _console.print(line, markup=False)


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _ranged(result: Mapping[str, Any], key: str, how: str) -> str:
    least, most = result[f"{key}_range"]
    return f"{result[key]:{how}} ({least:{how}}-{most:{how}})"


def _percentiles(found: Mapping[str, float | None]) -> list[str]:
    return [_ms(found[name]) for name in ("p50", "p99", "p99.9")]


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _counts(outcomes: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in outcomes.items())
