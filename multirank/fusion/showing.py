"""Rankings and differences, for people and as JSON."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from multirank.fusion.comparing import Difference, Fused
from multirank.fusion.formulas import Fuse
from multirank.fusion.recorded import Recorded

_WHY = "why: by how many deviations of the score each task's contribution (Shapley value) grows"


def show_ranking(recorded: Recorded, formula: Fuse, fused: Fused, top: int) -> None:
    """Print the best items with their task scores."""
    table = Table(title=f"{formula.label} on {recorded.source}", title_justify="left")
    for column in ("rank", "item", "score", *recorded.tasks):
        table.add_column(column, justify="right")
    for rank, row in enumerate(fused.order[:top].tolist(), 1):
        scores = [f"{score:.4g}" for score in (fused.scores[row], *recorded.scores[row])]
        table.add_row(str(rank), str(recorded.ids[row]), *scores)
    Console().print(table)


def show_difference(
    recorded: Recorded, before: Fuse, after: Fuse, difference: Difference, top: int
) -> None:
    """Print the items that move farthest, and what moves them."""
    console = Console()
    moved, count = difference.moved, len(recorded.ids)
    console.print(f"{before.label} -> {after.label} on {recorded.source}", highlight=False)
    best = min(10, count)
    console.print(
        f"{len(moved)} of {count} items move; Kendall's tau {difference.kendall_tau:.3f}; "
        f"{difference.overlap(best)} of the best {best} stay among them",
        highlight=False,
    )
    if not len(moved):
        return
    table = Table(caption=_WHY, caption_justify="left")
    for column in ("item", "rank", "moves", *(f"why: {task}" for task in recorded.tasks)):
        table.add_column(column, justify="right")
    for row in moved[:top].tolist():
        old, new = difference.before.ranks[row], difference.after.ranks[row]
        why = [f"{part:+.2f}" for part in difference.why[row]]
        table.add_row(str(recorded.ids[row]), f"{old} -> {new}", f"{old - new:+d}", *why)
    console.print(table)


def ranking_content(recorded: Recorded, formula: Fuse, fused: Fused) -> dict[str, Any]:
    """What `show_ranking` shows, of all items."""
    return {
        "fusion": _named(formula),
        "items": [
            {
                "id": recorded.ids[row],
                "score": _number(fused.scores[row]),
                "tasks": _by_task(recorded, recorded.scores[row]),
                "contributions": _by_task(recorded, fused.contributions[row]),
            }
            for row in fused.order.tolist()
        ],
    }


def difference_content(
    recorded: Recorded, before: Fuse, after: Fuse, difference: Difference
) -> dict[str, Any]:
    """What `show_difference` shows, of all items that move."""
    old, new = difference.before, difference.after
    return {
        "before": _named(before),
        "after": _named(after),
        "kendall_tau": difference.kendall_tau,
        "moved": [
            {
                "id": recorded.ids[row],
                "rank": [int(old.ranks[row]), int(new.ranks[row])],
                "score": [_number(old.scores[row]), _number(new.scores[row])],
                "contributions": [
                    _by_task(recorded, old.contributions[row]),
                    _by_task(recorded, new.contributions[row]),
                ],
                "why": _by_task(recorded, difference.why[row]),
            }
            for row in difference.moved.tolist()
        ],
    }


def _named(formula: Fuse) -> dict[str, Any]:
    compiled = formula.compiled
    return {"name": compiled.name, "version": compiled.version, "weights": dict(formula.weights)}


def _by_task(recorded: Recorded, values: Any) -> dict[str, float | None]:
    return dict(zip(recorded.tasks, map(_number, values), strict=True))


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
