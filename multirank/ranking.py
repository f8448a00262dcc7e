"""`multirank rank` and `multirank demo`: ask a running service, and show the answer to a person."""

from __future__ import annotations

import json
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:  # heavy imports wait until needed
    from bundle.store import Bundle

Models = Annotated[Path, typer.Option(envvar="MULTIRANK_MODELS_DIR", help="Published models")]
Context = Annotated[
    list[str] | None, typer.Option(help="A context feature, NAME=VALUE; may be given again")
]


def rank(
    user: Annotated[str, typer.Option(help="Id of the user to rank for")],
    url: Annotated[str, typer.Option(help="Where the service listens")] = "http://127.0.0.1:8000",
    model: Annotated[str, typer.Option(help="The model, and whose sample names the items")] = "",
    candidates: Annotated[
        int, typer.Option(help="How many items of the bundle's sample to rank")
    ] = 200,
    top: Annotated[int, typer.Option(help="How many to show")] = 10,
    models: Models = Path("models"),
    context: Context = None,
) -> None:
    """Rank items of the bundle's sample for one user, and print them with every task's score."""
    from loadtest.samples import SampleUnusable, newest

    try:
        bundle = newest(models, model or None)
    except SampleUnusable as error:
        typer.echo(error, err=True)
        raise typer.Exit(2) from error
    titles = _sample_titles(bundle)
    step = max(1, len(titles) // candidates)
    ids = list(titles)[::step][:candidates]
    request = {
        "model": bundle.manifest.model,
        "user": {"id": user},
        "context": dict(_named_value(each) for each in context or ()),
        "candidates": {"ids": ids},
        "top_k": top,
    }
    try:
        answer = _post(f"{url}/rank", request)
    except urllib.error.HTTPError as error:
        typer.echo(error.read().decode(), err=True)
        raise typer.Exit(1) from error
    except urllib.error.URLError as error:
        typer.echo(f"{url}: {error.reason}; is `multirank serve` running?", err=True)
        raise typer.Exit(1) from error
    _show(answer, titles, user, len(ids))


def demo(
    user: Annotated[str, typer.Option(help="Id of the user to rank for")],
    model: Annotated[str, typer.Option(help="The published model")],
    models: Models = Path("models"),
    context: Context = None,
) -> None:
    """Serve the published models on a free port, rank for one user, print, and stop."""
    from loadtest.server import ServiceFailed, serving

    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "service.log"
        try:
            with serving(models, model, log) as service:
                rank(user=user, url=service.url, model=model, models=models, context=context)
        except ServiceFailed as error:
            typer.echo(error, err=True)
            raise typer.Exit(1) from error


def _named_value(given: str) -> tuple[str, Any]:
    """`hour=21` -> ("hour", 21): a value is JSON where it can be, else a string."""
    name, _, value = given.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _post(url: str, body: Mapping[str, Any]) -> Any:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)


def _sample_titles(bundle: Bundle) -> dict[str, str]:
    """Id -> what the sample shows of an item, in the order of the sample."""
    import pyarrow.parquet as pq

    sample = bundle.manifest.samples["item"]
    table = pq.read_table(bundle.path / sample.file, columns=[sample.key, *sample.display])
    rows = zip(*(table.column(name).to_pylist() for name in table.column_names), strict=True)
    return {str(row[0]): ", ".join(str(shown) for shown in row[1:]) for row in rows}


def _show(answer: Any, titles: Mapping[str, str], user: str, candidates: int) -> None:
    from rich.console import Console
    from rich.table import Table

    model, fusion = answer["model"], answer["fusion"]
    table = Table(
        title=f"user {user}: best {len(answer['items'])} of {candidates} candidates, "
        f"{model['name']} version {model['version']}, fusion {fusion['name']} {fusion['version']}"
    )
    table.add_column("item", justify="right")
    table.add_column("title")
    for task in answer["items"][0]["tasks"]:
        table.add_column(task, justify="right")
    table.add_column("score", justify="right")
    for item in answer["items"]:
        tasks = [f"{score:.3f}" for score in item["tasks"].values()]
        title = titles.get(str(item["id"]), "")
        table.add_row(str(item["id"]), title, *tasks, f"{item['score']:.4f}")
    console = Console()
    console.print(table)
    console.print(f"degraded: {json.dumps(answer['degraded'])}")
    console.print(f"timing_ms: {json.dumps(answer['timing_ms'])}")


def register(app: typer.Typer) -> None:
    """Add `rank` and `demo`."""
    app.command()(rank)
    app.command()(demo)
