"""The comparison's table and last line: medians, order, and who could not be measured."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from loadtest.peers import report
from loadtest.peers.__main__ import Contestant
from loadtest.peers.running import PeerRound


def contestant(name: str, *items_per_s: float, cpu_ms: float = 1.0) -> Contestant:
    found = Contestant(name, "1.0", "as its manual says", connections=2)
    found.rounds = [
        PeerRound(items / 200, items, cpu_ms, Counter(ok=int(items))) for items in items_per_s
    ]
    return found


OURS = contestant("multirank", 100_000, 80_000, 90_000, cpu_ms=2.0)
SLOW = contestant("slow", 10_000, 30_000, 20_000, cpu_ms=9.0)
FAST = contestant("fast", 30_000, cpu_ms=6.0)
ABSENT = Contestant("absent", "", "never", unavailable="not installed: no such | package\nat all")


def outcome(*others: Contestant) -> dict[str, Any]:
    return {
        "date": "2026-01-02T03:04:05+00:00",
        "cpu": "a CPU",
        "commit": "abc",
        "load_average": 0.1,
        "candidates": 200,
        "cache": "warm",
        "rounds": 3,
        "results": [each.result(OURS) for each in (OURS, *others)],
    }


def test_results_are_medians_and_ratios() -> None:
    found = SLOW.result(OURS)
    assert found["items_per_s"] == 20_000
    assert found["items_per_s_range"] == [10_000, 30_000]
    assert found["requests_per_s"] == 100
    assert found["ratio"] == 4.5
    assert found["cpu_ratio"] == 4.5
    assert OURS.result(OURS)["ratio"] == 1.0
    assert ABSENT.result(OURS)["unavailable"].startswith("not installed")
    assert contestant("never run").result(OURS)["unavailable"] == "not measured"


def test_the_table_has_everyone_fastest_first() -> None:
    *head, first, second, third, last = report.table(outcome(SLOW, ABSENT, FAST)).splitlines()
    assert head[0].startswith("2026-01-02, a CPU, commit abc: 200 candidates, warm, one core")
    assert first.startswith("| multirank (as its manual says) | 450 | 90,000 (80,000-100,000) |")
    assert second.startswith("| fast 1.0 (as its manual says) |")
    assert second.endswith("| 3.0 times as fast |")
    assert third.endswith("| 9.00 | 4.5 times as fast |")
    assert (
        last == "| absent (never) | not measured: not installed: no such / package at all | | | |"
    )
    assert {line.count("|") for line in head[2:]} == {first.count("|")} == {last.count("|")}


def test_the_table_goes_between_the_marks_and_nowhere_else(tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    for _ in range(2):
        report.write_table(file, outcome(FAST))
    text = file.read_text()
    table = report.table(outcome(FAST))
    assert text == f"before\n{report.BEGIN}\n{table}{report.END}\nafter\n"

    file.write_text("no marks")
    with pytest.raises(ValueError, match="<!-- peers"):
        report.write_table(file, outcome(FAST))
    assert file.read_text() == "no marks"


def test_the_readme_has_the_marks() -> None:
    text = (Path(__file__).parents[4] / "README.md").read_text()
    assert text.index(report.BEGIN) < text.index(report.END)


def test_the_last_line_is_the_best_peer() -> None:
    line = report.last_line(outcome(SLOW, ABSENT, FAST))
    assert line["multirank_items_per_s"] == 90_000
    assert (line["best_peer"], line["best_peer_items_per_s"]) == ("fast", 30_000)
    assert (line["ratio"], line["cpu_ratio"]) == (3.0, 3.0)
    assert line["peers"] == {"slow": 20_000, "fast": 30_000}
    assert line["unavailable"] == {"absent": ABSENT.unavailable}
    nobody = report.last_line(outcome(ABSENT))
    assert (nobody["best_peer"], nobody["ratio"]) == (None, None)
