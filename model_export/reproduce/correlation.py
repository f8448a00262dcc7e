"""The synthetic data of the MMoE and PLE papers, as the tasks' correlation falls from 1 to 0."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console

from model_export import config as config_file
from model_export import pipeline
from model_export.data.correlated import CorrelatedOptions
from model_export.reproduce import budget, results
from model_export.reproduce.findings import compared, spread, today

EXAMPLE = Path("examples/correlated-tasks.yaml")
PARAMETERS = 13_000
"""Of eight experts of one layer of 16 units over 100 inputs, as in the MMoE paper."""

CORRELATIONS = (1.0, 0.75, 0.5, 0.25, 0.0)
NETWORKS = ("single_task", "shared_bottom", "mmoe", "cgc", "ple")

Errors = dict[str, dict[float, list[float]]]
"""Network -> correlation -> mean test RMSE of the two tasks, for each seed."""


def run(seeds: Sequence[int], cache: Path, out: Path, console: Console) -> None:
    """Train what the cache lacks; write correlation.md, .json and .png into `out`."""
    errors: Errors = {name: {p: [] for p in CORRELATIONS} for name in NETWORKS}
    for done, seed in enumerate(seeds, start=1):
        for p in CORRELATIONS:
            for name, result in _trained(p, seed, cache, console).items():
                test = result["test"]
                errors[name][p].append(mean(test[task]["rmse"] for task in test))
        _write(errors, done, out)
        console.print(f"correlation: {done} of {len(seeds)} seeds; {out / 'correlation.md'}")


def _trained(p: float, seed: int, cache: Path, console: Console) -> dict[str, dict[str, Any]]:
    """All networks on the data of one seed."""
    base = config_file.load(EXAMPLE)
    assert isinstance(base.data, CorrelatedOptions)
    data = base.data.model_copy(update={"task_correlation": p, "seed": seed})
    base = base.model_copy(update={"data": data, "seed": seed})
    prepared = pipeline.prepare(base)
    common = base.architecture.model_dump(include={"embedding_width", "tower_layers"})
    schema, tasks = prepared.features.schema, [task.served() for task in base.tasks]
    found = {}
    for name in NETWORKS:
        options = budget.sized(name, common, schema, tasks, PARAMETERS)
        named = f"correlation-{p:g}-{name}"
        config = base.model_copy(update={"name": named, "architecture": options})
        found[name] = results.trained(config, prepared, cache, console)
    return found


def _write(errors: Errors, seeds: int, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    content = {"date": today(), "seeds": seeds, "rmse": errors}
    (out / "correlation.json").write_text(json.dumps(content, indent=1))
    _draw(errors, out / "correlation.png")
    (out / "correlation.md").write_text(_report(errors, seeds))


def _draw(errors: Errors, path: Path) -> None:
    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for shift, name in enumerate(NETWORKS):
        at = [p + 0.008 * (shift - 2) for p in CORRELATIONS]  # bars beside each other
        means = [mean(errors[name][p]) for p in CORRELATIONS]
        bars = [_error(errors[name][p]) for p in CORRELATIONS]
        axes.errorbar(at, means, yerr=bars, marker=".", capsize=2, label=name)
    axes.invert_xaxis()
    axes.set(xlabel="cosine of the tasks' weights", ylabel="test RMSE, mean of both tasks")
    axes.legend()
    figure.savefig(path, dpi=100)


def _error(values: Sequence[float]) -> float:
    return stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0


def _report(errors: Errors, seeds: int) -> str:
    lines = [
        "# Synthetic tasks of a stated correlation",
        "",
        f"Made on {today()} by `make reproduce`: the data of the MMoE paper, section 3.2 "
        f"({EXAMPLE}), each seed its own data; {seeds} seeds. Every network has {PARAMETERS:,} "
        "parameters within a tenth. Mean test RMSE of the two tasks ± deviation over the seeds; "
        "the plot's bars are standard errors.",
        "",
        "![RMSE as the correlation falls](correlation.png)",
        "",
        "| network | " + " | ".join(f"p = {p:g}" for p in CORRELATIONS) + " |",
        "|---" * (len(CORRELATIONS) + 1) + "|",
    ]
    for name in NETWORKS:
        cells = " | ".join(spread(errors[name][p]) for p in CORRELATIONS)
        lines.append(f"| {name} | {cells} |")
    lines += [
        "",
        "What the papers claim, seed by seed (a positive difference is a smaller error):",
        "",
    ]
    bottom = errors["shared_bottom"]
    for name in ("mmoe", "ple"):
        for p in CORRELATIONS:
            word = compared([-e for e in errors[name][p]], [-e for e in bottom[p]])
            lines.append(f"- {name} better than shared_bottom at p = {p:g}: {word}.")
        high, low = CORRELATIONS[0], CORRELATIONS[-1]
        gains = [
            [other - one for one, other in zip(errors[name][p], bottom[p], strict=True)]
            for p in (low, high)
        ]
        word = compared(*gains)
        lines.append(f"- the advantage of {name} grows from p = {high:g} to {low:g}: {word}.")
    return "\n".join([*lines, ""])
