"""`multirank fusion check | eval | diff | publish | history | rollback`: formulas, offline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from multirank.fusion.places import (
    ModelName,
    Models,
    bundle_of,
    deployed,
    manifest_of,
    model_name,
    reported,
    stop,
)
from multirank.fusion.tune import tune

if TYPE_CHECKING:  # heavy imports wait until needed
    from multirank.fusion.formulas import Fuse
    from multirank.fusion.recorded import Recorded

app = typer.Typer(help="Check, try, compare, publish and tune formulas.", no_args_is_help=True)

_FORMULA = "A fusion's name, name@version, a .yaml file, or =FORMULA"
Formula = Annotated[str, typer.Argument(help=_FORMULA)]
Request = Annotated[Path, typer.Argument(help="JSON: an answer of /score or /rank, or a request")]
Name = Annotated[str, typer.Argument(help="The fusion; rules: the file of rules")]
Version = Annotated[int | None, typer.Option(help="A published version; the newest if left out")]
Weights = Annotated[list[str] | None, typer.Option("--weight", help="NAME=NUMBER, instead")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON")]
Top = Annotated[int, typer.Option(min=1, help="How many items to show")]
_MODELS = Path("models")

app.command()(tune)


@app.command()
def check(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Files or directories; the model's own if none")
    ] = None,
    model: ModelName = "",
    models: Models = _MODELS,
    version: Version = None,
    bundle: Annotated[Path | None, typer.Option(help="An unpublished bundle, instead")] = None,
) -> None:
    """Check formulas and rules against a version's tasks and features; every mistake is shown."""
    from multirank.fusion.checking import check_directory

    with reported():
        manifest, own = manifest_of(model, models, version, bundle)
        places = files or [own]
        wrong = 0
        for place in places:
            directory, names = (place, None) if place.is_dir() else (place.parent, {place.stem})
            for line, mistake in check_directory(directory, names, manifest):
                typer.echo(line, err=mistake)
                wrong += mistake
        if wrong:
            raise typer.Exit(1)


@app.command(name="eval")
def evaluate(
    formula: Formula,
    request: Request,
    model: ModelName = "",
    models: Models = _MODELS,
    version: Version = None,
    weight: Weights = None,
    top: Top = 20,
    as_json: AsJson = False,
) -> None:
    """Rank a recorded request with a formula."""
    from multirank.fusion import showing
    from multirank.fusion.comparing import fuse

    with reported():
        recorded, (wanted,) = _prepared([formula], request, model, models, version, weight)
        fused = fuse(recorded, wanted)
        if as_json:
            typer.echo(json.dumps(showing.ranking_content(recorded, wanted, fused)))
        else:
            showing.show_ranking(recorded, wanted, fused, top)


@app.command()
def diff(
    before: Formula,
    after: Formula,
    request: Request,
    model: ModelName = "",
    models: Models = _MODELS,
    version: Version = None,
    weight: Weights = None,
    top: Top = 20,
    as_json: AsJson = False,
) -> None:
    """Show which items of a recorded request move between two formulas, and why."""
    from multirank.fusion import showing
    from multirank.fusion.comparing import compare

    with reported():
        recorded, (one, other) = _prepared([before, after], request, model, models, version, weight)
        difference = compare(recorded, one, other)
        if as_json:
            typer.echo(json.dumps(showing.difference_content(recorded, one, other, difference)))
        else:
            showing.show_difference(recorded, one, other, difference, top)


@app.command()
def publish(
    file: Annotated[Path, typer.Argument(help="NAME.yaml, or rules.yaml")],
    model: ModelName = "",
    models: Models = _MODELS,
) -> None:
    """Check a file against the deployed versions and put it among the model's fusions."""
    from multirank.deployment import operator
    from service.lifecycle.formula_changes import put

    with reported():
        name = model_name(model, models)
        manifests = deployed(name, models)
        directory = models / name / "fusions"
        _tell(name, put(directory, file.stem, file.read_bytes(), manifests, operator()))


@app.command()
def history(
    name: Name, model: ModelName = "", models: Models = _MODELS, as_json: AsJson = False
) -> None:
    """Show which version of a formula was live since when, the newest last."""
    from service.fusion.history import History

    with reported():
        directory = models / model_name(model, models) / "fusions"
        entries = History(directory).entries(name)
        if as_json:
            typer.echo(json.dumps([entry.model_dump() for entry in entries]))
            return
        if not entries:
            stop(f"{directory}: nothing is known of '{name}'")
        for entry in entries:
            typer.echo(f"{entry.at}  {entry.version}  {entry.by}")


@app.command()
def rollback(
    name: Name,
    version: Annotated[
        str | None, typer.Argument(help="The version, or how it begins; else the one before")
    ] = None,
    model: ModelName = "",
    models: Models = _MODELS,
) -> None:
    """Bring back what was live under a name; a running service follows by itself."""
    from multirank.deployment import operator
    from service.lifecycle import formula_changes

    with reported():
        of = model_name(model, models)
        manifests = deployed(of, models)
        directory = models / of / "fusions"
        _tell(of, formula_changes.rollback(directory, name, version, manifests, operator()))


def _prepared(
    references: list[str],
    request: Path,
    model: str,
    models: Path,
    version: int | None,
    given: list[str] | None,
) -> tuple[Recorded, list[Fuse]]:
    from multirank.fusion.errors import FusionCommandError
    from multirank.fusion.formulas import compiled, find, parse_weights
    from multirank.fusion.recorded import read_recorded

    needs_model = not all(each.startswith("=") or each.endswith(".yaml") for each in references)
    named = bool(model or version is not None or needs_model)
    bundle = bundle_of(model, models, version) if named else None
    recorded = read_recorded(request, bundle)
    kinds = dict.fromkeys(recorded.features, "number")
    directory = bundle.path.parent / "fusions" if bundle else None
    weights = parse_weights(given)
    fusions = [find(each, directory) for each in references]
    formulas = [
        compiled(reference, fusion, recorded.tasks, kinds, weights)
        for reference, fusion in zip(references, fusions, strict=True)
    ]
    if unknown := weights.keys() - {name for each in formulas for name in each.compiled.weights}:
        raise FusionCommandError(f"--weight: no formula has a weight {', '.join(sorted(unknown))}")
    return recorded, formulas


def _tell(model: str, changed: Any) -> None:
    typer.echo(f"{model}: {changed.name}: was {changed.before or 'not there'}")
    typer.echo(f"{model}: {changed.name}: now {changed.after}")
    if changed.remark:
        typer.echo(f"{model}: {changed.name}: {changed.remark}")
