"""What the benchmark makes of its rounds: medians, ratios, tables, the chart, the last line."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from loadtest import bench, bench_report
from loadtest.bare import BareRound
from loadtest.charts import chart
from loadtest.served import ServedRound
from loadtest.throughput import Comparison, cost_per_candidate

MS = {"p50": 1.0, "p90": 2.0, "p99": 3.0, "p99.9": None, "max": 5.0}


def served_round(items_per_s: float, cpu_ms: float) -> ServedRound:
    return ServedRound(
        requests_per_s=items_per_s / 200,
        items_per_s=items_per_s,
        cpu_ms=cpu_ms,
        client_share=0.1,
        hit_rate=1.0,
        run_ms_per_row=0.01,
        outcomes=Counter(ok=7),
    )


def comparison(candidates: int = 200, cache: str = "warm") -> Comparison:
    return Comparison(
        candidates,
        cache,
        bare=[BareRound(candidates, runs, 2.0, 2.0) for runs in (100, 200, 300)],
        served=[served_round(40_000.0, 4.0), served_round(50_000.0, 5.0), served_round(9e3, 6.0)],
    )


def test_medians_and_ranges() -> None:
    result = comparison().result()

    assert result["bare_items_per_s"] == 20_000
    assert result["served_items_per_s"] == 40_000
    assert result["ratio"] == 2.0
    assert result["ratio_range"] == [0.3, 4.0]
    assert result["bare_cpu_ms"] == 10.0
    assert result["cpu_ratio"] == 2.0
    assert result["bare_core_share"] == 1.0
    assert result["served_core_share"] == 0.8
    assert result["outcomes"] == {"ok": 21}


@pytest.mark.parametrize(("cpu_seconds", "warned"), [(1.99, False), (1.5, True)])
def test_a_shared_core_is_pointed_out(
    capsys: pytest.CaptureFixture[str], cpu_seconds: float, warned: bool
) -> None:
    bare, served = [BareRound(200, 100, 2.0, cpu_seconds)], [served_round(4e4, 4.0)]
    bench_report.show_throughput([Comparison(200, "warm", bare, served).result()])

    assert ("Believe the ratio of CPU times" in capsys.readouterr().out) == warned


def test_the_last_line_is_the_reference() -> None:
    results = [comparison(50), comparison(200), comparison(200, "cold")]
    line = bench._last_line({"throughput": [each.result() for each in results]})

    assert line["workload"] == "feed200"
    assert (line["candidates"], line["cache"]) == (200, "warm")
    assert {"bare_items_per_s", "served_items_per_s", "ratio"} <= set(line)


def test_cost_of_a_candidate() -> None:
    cost = cost_per_candidate([comparison().result(), comparison(200, "cold").result()], "warm")

    assert cost == {"cache": "warm", "wall_us": {200: 25.0}, "cpu_us": {200: 25.0}}


def test_the_chart_is_svg_with_a_bar_for_each_measurement() -> None:
    results = [comparison(n, cache).result() for n in (50, 200) for cache in ("warm", "cold")]
    drawn = ElementTree.fromstring(chart(results, "one core & <more>"))

    bars = [each for each in drawn.iter() if each.tag.endswith("rect")]
    assert len(bars) == 1 + 2 * 3 + 3  # background, bars, legend
    assert all(float(each.get("height", "0").rstrip("%")) > 0 for each in bars)


def test_everything_found_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = {"ok": 12, "429": 3}
    bench_report.show_throughput([comparison().result()])
    bench_report.show_cost(cost_per_candidate([comparison().result()], "warm"))
    bench_report.show_latency(
        [
            {
                "share": 0.9,
                "capacity_requests_per_s": 321.0,
                "requests_per_s": 288.9,
                "latency_ms": MS,
                "outcomes": outcomes,
            }
        ]
    )
    bench_report.show_big_beside_small(
        {
            "small_requests_per_s": 100.0,
            "big_requests_per_s": 9.0,
            "row_budget": 512,
            "row_budget_ms": None,
            "alone_ms": MS,
            "beside_ms": MS,
            "p99_rise_ms": 4.25,
            "big_ms": MS,
            "outcomes": {"alone": outcomes, "beside": outcomes},
        }
    )
    shown = capsys.readouterr().out

    assert "40,000" in shown
    assert "90% of 321" in shown
    assert "12 ok, 3 429" in shown
    assert "p99 rises by 4.25 ms" in shown


@pytest.mark.parametrize("options", [["--rounds", "0"], ["--only", "nonsense"], ["--seconds", "0"]])
def test_wrong_options_end_with_2(tmp_path: Path, options: list[str]) -> None:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(
        bench.app, ["--workload", str(tmp_path), *options]
    )

    assert result.exit_code == 2
    assert options[0] in result.output
    assert not list(tmp_path.iterdir())
