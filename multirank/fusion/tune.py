"""`multirank fusion tune`: weights searched on labelled rankings, judged on others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from multirank.fusion.places import ModelName, Models, model_name, reported

if TYPE_CHECKING:  # heavy imports wait until needed
    from multirank.fusion.tuning.labelled import Labelled
    from multirank.fusion.tuning.outcome import Outcome
    from service.fusion.formula import Fusion

_MODELS = Path("models")


def tune(
    formula: Annotated[str, typer.Argument(help="A fusion's name, name@version, or a .yaml file")],
    maximise: Annotated[str, typer.Option(help="ndcg@K(TASK), auc(TASK) or gauc(TASK)")],
    keep: Annotated[
        list[str] | None, typer.Option(help="METRIC>=99%, of the baseline, or METRIC>=0.8")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="A run directory: searched on validation, judged on test")
    ] = None,
    labelled: Annotated[
        Path | None, typer.Option(help="Parquet with list, score.* and label.* instead")
    ] = None,
    decisions: Annotated[
        Path | None, typer.Option(help="A decision log instead; --labelled says what came of it")
    ] = None,
    held_out: Annotated[
        Path | None, typer.Option(help="Parquet to judge on; else 30 % of the groups")
    ] = None,
    baseline: Annotated[
        list[str] | None, typer.Option(help="NAME=NUMBER; else the formula's defaults")
    ] = None,
    free: Annotated[
        list[str] | None, typer.Option("--tune", help="A weight to search; all")
    ] = None,
    generations: Annotated[int, typer.Option(min=1, help="Of each search")] = 12,
    seed: Annotated[int, typer.Option(help="The same seed finds the same weights")] = 0,
    picture: Annotated[Path | None, typer.Option(help="PNG or SVG of the Pareto front")] = None,
    write: Annotated[Path | None, typer.Option(help="Write the formula with its weights")] = None,
    model: ModelName = "",
    models: Models = _MODELS,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON")] = False,
) -> None:
    """Search the weights of a formula on labelled rankings, and judge them on others."""
    with reported():
        from multirank.fusion.errors import FusionCommandError
        from multirank.fusion.formulas import find, parse_weights
        from multirank.fusion.tuning import outcome as outcomes
        from multirank.fusion.tuning.goals import Kept, Metric
        from multirank.fusion.tuning.search import free_weights
        from service.fusion.compile import compile_fusion

        is_file = formula.endswith(".yaml")
        directory = None if is_file else models / model_name(model, models) / "fusions"
        fusion = find(formula, directory)
        searched, judged = _parts(run, labelled, decisions, held_out, seed)
        kinds = dict.fromkeys(searched.features, "number")
        compiled = compile_fusion(fusion, searched.tasks, kinds)
        kept = [Kept.parse(each) for each in keep or ()]
        if picture and not kept:
            raise FusionCommandError("--picture: a front has two sides; --keep names the other")
        found = outcomes.tune(
            compiled,
            searched,
            judged,
            Metric.parse(maximise),
            kept,
            free_weights(compiled, free or ()),
            compiled.bind_weights(parse_weights(baseline)),
            seed,
            generations,
        )
        if as_json:
            typer.echo(json.dumps(_content(found)))
        else:
            _show(found)
        if picture:
            from multirank.fusion.tuning.picture import draw

            draw(found, picture)
        if write:
            if not found.better:
                raise FusionCommandError(f"{write}: not written: {outcomes.verdict(found)}")
            assert found.found is not None  # by `better`
            _write(write, fusion, found.found.weights, maximise, kept=found.kept)


def _parts(
    run: Path | None,
    labelled: Path | None,
    decisions: Path | None,
    held_out: Path | None,
    seed: int,
) -> tuple[Labelled, Labelled]:
    from multirank.fusion.errors import FusionCommandError
    from multirank.fusion.tuning.labelled import read_decisions, read_labelled
    from multirank.fusion.tuning.run import read_run

    if run is not None:
        if labelled or decisions or held_out:
            raise FusionCommandError("--run: brings its own rows to search and to hold out")
        return read_run(run)
    if labelled is None:
        raise FusionCommandError("name a --run, or --labelled rows")
    rows = read_decisions(decisions, labelled) if decisions else read_labelled(labelled)
    return (rows, read_labelled(held_out)) if held_out else rows.split(0.3, seed)


def _show(outcome: Outcome) -> None:
    from rich.console import Console
    from rich.table import Table

    from multirank.fusion.tuning.outcome import verdict

    console = Console(highlight=False)
    console.print(f"searched: {outcome.searched}\nheld out: {outcome.held_out}", soft_wrap=True)
    kept = f", keeping {', '.join(outcome.kept)}" if outcome.kept else ""
    table = Table(title=f"maximise {outcome.metrics[0]}{kept}", title_justify="left")
    table.add_column("")
    columns = [("baseline", outcome.baseline, outcome.baseline_held_out)]
    if outcome.found is not None and outcome.found_held_out is not None:
        columns.append(("tuned", outcome.found, outcome.found_held_out))
    for heading, _, _ in columns:
        table.add_column(heading, justify="right")
    for name in outcome.baseline.weights:
        table.add_row(name, *(f"{searched.weights[name]:.4g}" for _, searched, _ in columns))
    table.add_section()
    for place, metric in enumerate(outcome.metrics):
        table.add_row(metric, *(f"{searched.values[place]:.4f}" for _, searched, _ in columns))
    for place, metric in enumerate(outcome.metrics):
        held = [f"{judged.values[place]:.4f}" for _, _, judged in columns]
        table.add_row(f"{metric}, held out", *held)
    console.print(table)
    console.print(f"{outcome.tried} weights tried; {verdict(outcome)}", soft_wrap=True)


def _content(outcome: Outcome) -> dict[str, Any]:
    from multirank.fusion.tuning.outcome import verdict

    def one(tried: Any) -> Any:
        values = tried and dict(zip(outcome.metrics, tried.values, strict=True))
        return tried and {"weights": tried.weights, "values": values}

    return {
        "searched": outcome.searched,
        "held_out": outcome.held_out,
        "kept": outcome.kept,
        "baseline": {"searched": one(outcome.baseline), "held_out": one(outcome.baseline_held_out)},
        "tuned": {"searched": one(outcome.found), "held_out": one(outcome.found_held_out)},
        "better": outcome.better,
        "interval": outcome.interval,
        "verdict": verdict(outcome),
        "front": [one(each) for each in outcome.front],
        "tried": outcome.tried,
    }


def _write(
    file: Path, fusion: Fusion, weights: Mapping[str, float], maximise: str, kept: tuple[str, ...]
) -> None:
    import yaml

    from service.fusion.history import write_file

    content = fusion.file.model_dump(exclude={"inherits"}, exclude_defaults=True)
    for name, value in weights.items():
        content["weights"][name]["default"] = round(value, 6)
    goal = " keeping ".join((maximise, *kept))
    about = content.get("description", fusion.name)
    content["description"] = f"{about} (weights tuned for {goal})"
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=4096)
    write_file(file, text.encode())
    typer.echo(f"written: {file}")
