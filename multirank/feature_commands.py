"""`multirank features`: load tables into Redis, and look at what is there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:  # heavy imports wait until needed
    from service.features.deployment import Client
    from service.features.feature_set import FeatureSet
    from service.features.loading import BadRows, Report

app = typer.Typer(help="Load feature rows into Redis, and look at them.", no_args_is_help=True)

_SHARE_OF_PLAIN_PROGRESS = 0.1
_SAYS_WHERE = "--redis-url or MULTIRANK_REDIS_URL"


class OnBadRows(StrEnum):
    """What to do about rows that do not fit the schema."""

    stop = "stop"
    skip = "skip"


Entity = Literal["user", "item"]
Model = Annotated[str | None, typer.Option(help="The published model whose features they are")]
Schema = Annotated[
    Path | None, typer.Option(help="YAML file of a feature set, in place of a model")
]
Models = Annotated[Path, typer.Option(envvar="MULTIRANK_MODELS_DIR")]
RedisUrl = Annotated[
    str, typer.Option(envvar="MULTIRANK_REDIS_URL", help="e.g. redis://localhost:6379/0")
]
_MODELS, _REDIS = Path("models"), "redis://localhost:6379/0"


@app.command()
def load(
    entity: Annotated[Entity, typer.Option(help="Whose features the file has")],
    model: Model = None,
    file: Annotated[
        Path | None,
        typer.Argument(help="Parquet, CSV or JSON lines; left out: the bundle's own sample"),
    ] = None,
    schema: Schema = None,
    bad_rows: Annotated[
        OnBadRows,
        typer.Option(help="stop: check the whole file first, write nothing if a row is bad"),
    ] = OnBadRows.stop,
    rate: Annotated[int | None, typer.Option(min=1, help="Most rows a second")] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin anew, not where an interrupted load stopped")
    ] = False,
    models: Models = _MODELS,
    redis_url: RedisUrl = _REDIS,
) -> None:
    """Load a table of users or items. Interrupted, even killed, it goes on where it stopped."""
    import redis

    from service.features.loading import Checkpoint, RowsRejected, check_table, load_table

    with _errors(), _client(redis_url) as client:
        features, sample = _feature_set(model, schema, models, entity)
        path = file or sample
        if path is None:
            raise typer.BadParameter("name a file: the model has no sample of its own")
        checkpoint = Checkpoint(client, features, entity, path, restart)
        if bad_rows is OnBadRows.stop:
            try:
                with _progress(f"checking {entity} rows") as report:
                    check_table(path, features, entity, report)
            except RowsRejected as rejected:
                _echo_bad(path, rejected.bad)
                typer.echo("nothing was written: mend them, or --bad-rows skip", err=True)
                raise typer.Exit(1) from rejected
        with _progress(f"loading {entity} rows") as report:
            resumed_after = checkpoint.seen
            try:
                loaded = load_table(client, path, features, entity, checkpoint, report, rate)
            except (redis.RedisError, KeyboardInterrupt):
                typer.echo("interrupted: the same command goes on from there", err=True)
                raise
    if resumed_after:
        typer.echo(f"went on after {resumed_after} rows that were loaded before", err=True)
    _echo_bad(path, loaded.bad)
    about = f", left out {loaded.bad.count}" if loaded.bad.count else ""
    if loaded.repeated:
        about += f"; replaced by later rows of the same id: {loaded.repeated}"
    typer.echo(f"loaded {loaded.rows} {entity} rows of {features.name} from {path}{about}")


@app.command()
def get(
    entity: Annotated[Entity, typer.Argument()],
    entity_id: Annotated[str, typer.Argument(metavar="ID")],
    model: Model = None,
    schema: Schema = None,
    models: Models = _MODELS,
    redis_url: RedisUrl = _REDIS,
) -> None:
    """Print one row as JSON. Texts are stored as hashes. Ends with 1 if there is no usable row."""
    import json

    from service.features.inspection import inspect_row

    with _errors(), _client(redis_url) as client:
        features, _ = _feature_set(model, schema, models, entity)
        found = inspect_row(client, features, entity, entity_id)
    typer.echo(json.dumps(found, indent=1))
    if found["state"] != "found":
        raise typer.Exit(1)


@app.command()
def stats(
    model: Model = None,
    schema: Schema = None,
    models: Models = _MODELS,
    redis_url: RedisUrl = _REDIS,
) -> None:
    """Print a JSON line for each entity: how many rows there are, their memory and their age."""
    import json

    from service.features.feature_set import STORED
    from service.features.inspection import inspect_rows

    with _errors(), _client(redis_url) as client:
        features, _ = _feature_set(model, schema, models, "item")
        for entity in STORED:
            typer.echo(json.dumps(inspect_rows(client, features, entity)))


@app.command()
def footprint(
    entity: Annotated[Entity, typer.Option(help="Whose rows")] = "item",
    rows: Annotated[int, typer.Option(min=1)] = 1_000_000,
    model: Model = None,
    schema: Schema = None,
    models: Models = _MODELS,
    redis_url: RedisUrl = _REDIS,
) -> None:
    """Measure the memory of so many rows, in process and in Redis, by keeping them for a moment."""
    import json

    from service.features.footprint import bytes_in_process, bytes_in_redis

    with _errors(), _client(redis_url) as client:
        features, _ = _feature_set(model, schema, models, entity)
        found = {
            "feature_set": features.name,
            "entity": entity,
            "rows": rows,
            "row_bytes": features.layout(entity).dtype.itemsize,
            "bytes_in_process": bytes_in_process(features, entity, rows),
            "bytes_in_redis": bytes_in_redis(client, features, entity, rows),
        }
    typer.echo(json.dumps(found))


def _feature_set(
    model: str | None, schema: Path | None, models: Path, entity: Entity
) -> tuple[FeatureSet, Path | None]:
    """The feature set of a model or of a file, and the model's sample of an entity."""
    from bundle import store
    from service.features.feature_set import FeatureSet

    if (model is None) == (schema is None):
        raise typer.BadParameter("give one of --model and --schema")
    if schema is not None:
        return FeatureSet.of_file(schema), None
    bundle = store.load_version(models, str(model), None)
    sample = bundle.manifest.samples.get(entity)
    return FeatureSet.of_bundle(bundle), bundle.path / sample.file if sample else None


@contextmanager
def _client(url: str) -> Iterator[Client]:
    from service.features.deployment import parse_deployment

    client = parse_deployment(url).client()
    try:
        yield client
    finally:
        client.close()


@contextmanager
def _errors() -> Iterator[None]:
    """Say what is wrong in a line, and end with 1."""
    import redis

    from bundle.errors import BundleError
    from service.features.deployment import DeploymentInvalid
    from service.features.feature_set import FeatureSetInvalid
    from service.features.loading import RowsLost
    from service.features.table_files import TableInvalid

    try:
        yield
    except (BundleError, FeatureSetInvalid, RowsLost, TableInvalid, OSError) as error:
        typer.echo(f"{error}", err=True)
        raise typer.Exit(1) from error
    except DeploymentInvalid as error:
        typer.echo(f"{_SAYS_WHERE}: {error}", err=True)
        raise typer.Exit(1) from error
    except redis.AuthenticationError as error:
        typer.echo(f"redis refuses the login: {error}; {_SAYS_WHERE} has it", err=True)
        raise typer.Exit(1) from error
    except redis.RedisError as error:
        typer.echo(f"redis: {error}; {_SAYS_WHERE} says where it is", err=True)
        raise typer.Exit(1) from error


@contextmanager
def _progress(about: str) -> Iterator[Report]:
    """A progress bar; a line now and then where there is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        said = 0.0

        def say(rows: int, share: float) -> None:
            nonlocal said
            if share >= min(said + _SHARE_OF_PLAIN_PROGRESS, 1.0):
                said = share
                typer.echo(f"{about}: {rows} ({share:.0%})", err=True)

        yield say
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    counts = (TextColumn("{task.fields[rows]} rows"), TimeElapsedColumn())
    with Progress(*columns, *counts, console=console) as progress:
        task = progress.add_task(about, total=1.0, rows=0)
        yield lambda rows, share: progress.update(task, completed=share, rows=rows)


def _echo_bad(path: Path, bad: BadRows) -> None:
    for each in bad.first:
        typer.echo(f"{path}: {each}", err=True)
    if more := bad.count - len(bad.first):
        typer.echo(f"{path}: and {more} more bad rows", err=True)
