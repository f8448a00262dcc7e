"""A run as one picture: task losses, which expert serves which task, how the gradients conflict.

Drawn from the epochs' records, as they are in metrics.jsonl.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

FILE = "picture.png"
_PANEL_WIDTH, _HEIGHT = 3.6, 3.2


def draw(epochs: Sequence[Mapping[str, Any]], tasks: Sequence[str], path: Path) -> None:
    """Write the picture of a run.

    Args:
        epochs: at least one record of `model_export.training.trainer.Epoch`.
        tasks: names of the T tasks.
        path: a PNG file.
    """
    gates: Mapping[str, Any] = epochs[-1]["gates"]
    figure = Figure(figsize=(_PANEL_WIDTH * (2 + len(gates)), _HEIGHT), layout="constrained")
    FigureCanvasAgg(figure)
    losses, conflict, *usages = figure.subplots(1, 2 + len(gates), squeeze=False)[0]
    numbers = [epoch["number"] for epoch in epochs]
    for task in tasks:
        losses.plot(numbers, [epoch["losses"][task] for epoch in epochs], marker=".", label=task)
    losses.set(title="training loss", xlabel="epoch")
    losses.legend(fontsize="small")
    _conflict(conflict, epochs, tasks, numbers)
    for axes, (name, usage) in zip(usages, gates.items(), strict=True):
        _usage(axes, name, usage, tasks)
    figure.savefig(path, dpi=80)


def _conflict(
    axes: Axes, epochs: Sequence[Mapping[str, Any]], tasks: Sequence[str], numbers: Sequence[int]
) -> None:
    for row, first in enumerate(tasks):
        for column in range(row + 1, len(tasks)):
            cosines = [epoch["conflict"][row][column] for epoch in epochs]
            axes.plot(numbers, cosines, marker=".", label=f"{first}, {tasks[column]}")
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set(title="cosine of task gradients", xlabel="epoch", ylim=(-1.05, 1.05))
    if len(tasks) > 1:
        axes.legend(fontsize="small")


def _usage(axes: Axes, name: str, usage: Sequence[Sequence[float]], tasks: Sequence[str]) -> None:
    """Gates are those of the tasks, and then the shared one; or a single one for all tasks."""
    rows = ["all tasks"] if len(usage) == 1 < len(tasks) else [*tasks, "shared"][: len(usage)]
    if len(usage) > len(rows):
        rows = [str(gate) for gate in range(len(usage))]
    axes.imshow(usage, vmin=0, vmax=1, cmap="Blues", aspect="auto")
    for row, weights in enumerate(usage):
        for column, weight in enumerate(weights):
            shade = "white" if weight > 0.5 else "black"
            axes.text(column, row, f"{weight:.2f}", ha="center", va="center", color=shade)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xticks(range(len(usage[0])))
    axes.set(title=f"mean weight, {name}", xlabel="expert")
