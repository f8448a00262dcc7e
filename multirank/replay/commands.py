"""`multirank replay LOG --against VERSION`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:  # heavy imports wait until needed
    from multirank.replay.comparing import Report


def replay(
    log: Annotated[Path, typer.Argument(help="A decision log: its directory, or one file of it")],
    against: Annotated[int, typer.Option(help="The published version that scores it again")],
    model: Annotated[str, typer.Option(help="The model; the only one of the log if left out")] = "",
    models: Annotated[
        Path, typer.Option(envvar="MULTIRANK_MODELS_DIR", help="Where published models are")
    ] = Path("models"),
    top_k: Annotated[int, typer.Option(min=1, help="How many best items are compared")] = 10,
    show: Annotated[int, typer.Option(min=0, help="How many requests to show")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON")] = False,
) -> None:
    """Score logged requests again with a version, and report what differs."""
    from bundle.errors import BundleError
    from service.decision_log.reading import LogUnreadable

    try:
        model = model or _only_model(log)
        report = _compared(log, models, model, against, top_k)
    except (LogUnreadable, BundleError) as error:
        typer.echo(error, err=True)
        raise typer.Exit(1) from error
    if as_json:
        typer.echo(json.dumps(_content(report, model, against, show)))
    else:
        _print(report, model, against, show)


def _only_model(log: Path) -> str:
    from service.decision_log.reading import LogUnreadable, files_of, read

    found = {recorded.model for file in files_of(log) for recorded in read(file)}
    if len(found) > 1:
        raise LogUnreadable(f"{log}: of {', '.join(sorted(found))}; name one with --model")
    if not found:
        raise LogUnreadable(f"{log}: no decision in it yet")
    return found.pop()


def _compared(log: Path, models: Path, model: str, against: int, top_k: int) -> Report:
    from bundle import store
    from multirank.replay.comparing import Report
    from multirank.replay.rescoring import Rescorer
    from service.decision_log.reading import LogUnreadable, files_of, read

    bundle = store.load_version(models, model, against)
    rescorer, report = Rescorer(bundle), Report(top_k)
    for file in files_of(log):
        for recorded in read(file):
            if recorded.model == model:
                report.add(recorded, rescorer.rescore(recorded), bundle.manifest.task_names)
    if not report.changes:
        raise LogUnreadable(f"{log}: no decision of {model} in it")
    return report


def _content(report: Report, model: str, against: int, show: int) -> dict[str, Any]:
    ordered = report.ordered
    return {
        "model": model,
        "against": against,
        "requests": len(report.changes),
        "tasks": {
            name: {"max": task.largest, "mean": task.mean, "only_one_finite": task.only_one}
            for name, task in report.tasks.items()
        },
        "fused": len(ordered),
        "order_changed": sum(change.kendall_tau != 1.0 for change in ordered),
        "kendall_tau": _mean([change.kendall_tau or 0.0 for change in ordered]),
        "top_k": report.top_k,
        "top_k_overlap": _mean([change.overlap or 0.0 for change in ordered]),
        "other_formula": report.other_formula,
        "absent_features": dict(report.absent),
        "missing_tasks": dict(report.missing_tasks),
        "most_changed": [asdict(change) for change in report.most_changed(show)],
    }


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _print(report: Report, model: str, against: int, show: int) -> None:
    from rich.console import Console
    from rich.table import Table

    console, found = Console(), _content(report, model, against, show)
    tasks = Table(title=f"{found['requests']} requests, {model} version {against} against the log")
    for title in ("task", "largest |difference|", "mean", "finite in one only"):
        tasks.add_column(title, justify="left" if title == "task" else "right")
    for name, task in report.tasks.items():
        tasks.add_row(name, f"{task.largest:.3g}", f"{task.mean:.3g}", str(task.only_one))
    console.print(tasks)
    if report.ordered:
        console.print(
            f"order: {found['order_changed']} of {found['fused']} rankings change; Kendall's tau "
            f"{found['kendall_tau']:.4f}, overlap of the best {report.top_k} "
            f"{found['top_k_overlap']:.4f}"
        )
    if report.other_formula:
        console.print(f"{report.other_formula} requests: their formula is gone; today's was used")
    for feature, count in report.absent.items():
        console.print(f"{feature}: not in the log of {count} requests; its default was used")
    for name, count in report.missing_tasks.items():
        console.print(f"{name}: only in the log or only in the version, {count} requests")
    if show:
        changed = Table(title="most changed")
        for title in ("request", "logged by", "largest |difference|", "task", "tau", "overlap"):
            changed.add_column(title)
        for change in report.most_changed(show):
            tau = "" if change.kendall_tau is None else f"{change.kendall_tau:.4f}"
            overlap = "" if change.overlap is None else f"{change.overlap:.2f}"
            row = (change.request_id, f"version {change.version}", f"{change.largest:.3g}")
            changed.add_row(*row, change.task or "", tau, overlap)
        console.print(changed)


def register(app: typer.Typer) -> None:
    """Add `replay`."""
    app.command()(replay)
