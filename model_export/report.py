"""What training and export print for a person: sizes, held-out metrics, parity, comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, stdev

from rich.console import Console
from rich.table import Table

from bundle.manifest import Parity
from model_export.config import Config
from model_export.data.impressions import Feed
from model_export.gain import CANDIDATES, Gain
from model_export.training.evaluation import Metrics
from model_export.training.run_directory import Summary


def print_sizes(feed: Feed, console: Console) -> None:
    """The data set and how large it is."""
    sizes = ", ".join(f"{size:,} {name.replace('_', ' ')}" for name, size in feed.sizes().items())
    console.print(f"data: {feed.description}\n      {sizes}", highlight=False, soft_wrap=True)


def print_summary(config: Config, summary: Summary, console: Console) -> None:
    """Held-out metrics of one run."""
    console.print(
        f"trained {config.name} ({config.architecture.family}): "
        f"{summary.epochs} epochs in {summary.seconds:.1f} s",
        highlight=False,
        soft_wrap=True,
    )
    console.print(comparison({config.name: [summary.test]}))


def print_parity(parity: Parity, console: Console) -> None:
    """How far onnxruntime is from torch."""
    console.print(
        f"parity: onnxruntime and torch differ by at most {parity.max_abs_difference:.1e} "
        f"at {_listed(parity.rows)} rows of {_listed(parity.users)} users",
        highlight=False,
        soft_wrap=True,
    )


def print_gain(gain: Gain, console: Console) -> None:
    """What the stages save, and what they cost."""
    warm, cold = (gain.undivided_ms / each for each in (gain.cached_ms, gain.cold_ms))
    console.print(
        f"stages: {CANDIDATES} candidates take {gain.cached_ms:.2f} ms with item tensors cached, "
        f"{gain.cold_ms:.2f} ms with none, {gain.undivided_ms:.2f} ms undivided: "
        f"{warm:.1f} and {cold:.1f} times as fast, at {gain.item_tensor_bytes:,} bytes an item",
        highlight=False,
        soft_wrap=True,
    )


def comparison(runs: Mapping[str, Sequence[Metrics]]) -> Table:
    """A table of held-out metrics, a column for each experiment; the mean over its seeds."""
    first, *others = next(iter(runs.values()))
    over = f", mean ± deviation of {len(others) + 1} seeds" if others else ""
    table = Table(title=f"held-out metrics (test period){over}")
    table.add_column("task")
    table.add_column("metric")
    for name in runs:
        table.add_column(name, overflow="fold")
    for task, metrics in first.items():
        for metric in metrics:
            cells = [
                _cell([seed.get(task, {}).get(metric) for seed in seeds]) for seeds in runs.values()
            ]
            table.add_row(task, metric.upper(), *cells)
    return table


def _cell(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    spread = f" ± {stdev(known):.4f}" if len(known) > 1 else ""
    return f"{mean(known):.4f}{spread}"


def _listed(numbers: Sequence[int]) -> str:
    *others, last = map(str, numbers)
    return f"{', '.join(others)} and {last}" if others else last
