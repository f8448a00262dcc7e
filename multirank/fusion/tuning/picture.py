"""The Pareto front as a picture: what is gained against what is kept, searched and held out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from multirank.fusion.tuning.outcome import Outcome
from multirank.fusion.tuning.search import Tried

_LINE, _BASELINE, _FOUND = "#30638e", "#8d99ae", "#d1495b"


def draw(outcome: Outcome, file: Path) -> None:
    """Draw the front as PNG or SVG, by the file's name."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    objective, kept = outcome.metrics[:2]
    with mpl.rc_context({"svg.hashsalt": "multirank", "font.size": 9}):
        figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
        panels = (
            ("rows searched", outcome.front, outcome.baseline, outcome.found),
            (
                "rows held out, the same weights",
                outcome.front_held_out,
                outcome.baseline_held_out,
                outcome.found_held_out,
            ),
        )
        for axis, (title, front, baseline, found) in zip(axes, panels, strict=True):
            line = _points(front)
            axis.plot(*line, "o-", color=_LINE, markersize=3, label="Pareto front of the search")
            axis.plot(*_points([baseline]), "s", color=_BASELINE, markersize=8, label="baseline")
            if found is not None:
                axis.plot(*_points([found]), "*", color=_FOUND, markersize=13, label="tuned")
            axis.set(title=title, xlabel=kept, ylabel=objective)
            axis.grid(alpha=0.3)
        axes[0].legend()
        metadata = {"Date": None} if file.suffix == ".svg" else None
        figure.savefig(file, dpi=120, metadata=metadata)
        plt.close(figure)


def _points(tried: Sequence[Tried]) -> tuple[list[float], list[float]]:
    return [each.values[1] for each in tried], [each.values[0] for each in tried]
