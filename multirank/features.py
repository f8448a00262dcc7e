"""`multirank features`: bring feature tables into Redis."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(help="Load feature rows into Redis.", no_args_is_help=True)


@app.callback()
def features() -> None:
    """Load feature rows into Redis."""


@app.command()
def load(
    entity: Annotated[Literal["user", "item"], typer.Option(help="Whose features the file has")],
    model: Annotated[str, typer.Option(help="The published model whose features are loaded")],
    file: Annotated[
        Path | None, typer.Argument(help="Parquet file; left out: the bundle's own sample")
    ] = None,
    models: Annotated[Path, typer.Option(envvar="MULTIRANK_MODELS_DIR")] = Path("models"),
    redis_url: Annotated[
        str, typer.Option(envvar="MULTIRANK_REDIS_URL", help="e.g. redis://localhost:6379/0")
    ] = "redis://localhost:6379/0",
) -> None:
    """Load a Parquet file of users or items, checked against the newest version's schema."""
    import redis
    from rich.progress import Progress

    from bundle import store
    from bundle.errors import BundleError
    from service.features.keys import key_prefix
    from service.features.redis import write_rows
    from service.features.tables import TableInvalid, feature_file, read_table, table_rows

    published = store.versions(models, model)
    if not published:
        typer.echo(f"{models / model}: no published version", err=True)
        raise typer.Exit(1)
    try:
        bundle = store.load(models / model / str(published[-1]))
        layout = bundle.encoder().layouts[entity]
        file, key = feature_file(bundle, entity, file)
        prefix = key_prefix(bundle.manifest.feature_set, layout)
        total = table_rows(file)
        with redis.Redis.from_url(redis_url) as client, Progress() as progress:
            task = progress.add_task(f"{entity} features", total=total)
            for batch in read_table(file, key, layout):
                write_rows(client, [(prefix + entity_id, row) for entity_id, row in batch])
                progress.advance(task, len(batch))
    except (BundleError, TableInvalid, redis.RedisError) as error:
        typer.echo(f"{error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"loaded {total} {entity} rows of {model} from {file}")
