"""What people read of the comparison: lines on the way, and the table in the README."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loadtest.bench_report import say, show_circumstances

__all__ = ["last_line", "say", "show_circumstances", "table", "write_table"]

BEGIN, END = "<!-- peers: written by `make bench-peers` -->", "<!-- /peers -->"
_LONGEST_REASON = 160


def table(outcome: Mapping[str, Any]) -> str:
    """The comparison as Markdown, fastest first; who could not be measured comes last, with why."""
    lines = [
        f"{outcome['date'][:10]}, {outcome['cpu']}, commit {outcome['commit']}: "
        f"{outcome['candidates']} candidates, warm, one core, medians of {outcome['rounds']} "
        f"rounds (load average {outcome['load_average']} at the start).",
        "",
        "| | requests/s | candidates/s | CPU ms a request | multirank is |",
        "|---|---:|---:|---:|---:|",
    ]
    results = outcome["results"]
    measured = [each for each in results if "unavailable" not in each]
    for each in sorted(measured, key=lambda each: -each["items_per_s"]):
        least, most = each["items_per_s_range"]
        lines.append(
            f"| {_who(each)} | {each['requests_per_s']:.0f} | {each['items_per_s']:,} "
            f"({least:,}-{most:,}) | {each['cpu_ms']:.2f} | {each['ratio']:.1f} times as fast |"
        )
    for each in results:
        if "unavailable" in each:
            reason = " ".join(each["unavailable"].split())[:_LONGEST_REASON].replace("|", "/")
            lines.append(f"| {_who(each)} | not measured: {reason} | | | |")
    return "\n".join(lines) + "\n"


def _who(each: Mapping[str, Any]) -> str:
    version = "" if each["name"] == "multirank" else f" {each['version']}".rstrip()
    return f"{each['name']}{version} ({each['settings']})"


def write_table(file: Path, outcome: Mapping[str, Any]) -> None:
    """Put the table between the marks of the file.

    Raises:
        ValueError: the file has no such marks.
    """
    text = file.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{file}: no {BEGIN} ... {END}")
    file.write_text(f"{before}{begin}\n{table(outcome)}{end}{after}")


def last_line(outcome: Mapping[str, Any]) -> dict[str, Any]:
    """multirank and the best peer; who could not be measured."""
    ours, *others = outcome["results"]
    measured = [each for each in others if "unavailable" not in each]
    best = max(measured, key=lambda each: each["items_per_s"], default=None)
    return {
        "workload": "feed200",
        "candidates": outcome["candidates"],
        "cache": outcome["cache"],
        "multirank_items_per_s": ours["items_per_s"],
        "best_peer": best and best["name"],
        "best_peer_items_per_s": best and best["items_per_s"],
        "ratio": best and best["ratio"],
        "cpu_ratio": best and best["cpu_ratio"],
        "peers": {each["name"]: each["items_per_s"] for each in measured},
        "unavailable": {e["name"]: e["unavailable"] for e in others if "unavailable" in e},
    }
