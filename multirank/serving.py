"""`multirank serve`: the scorer, as one uvicorn process."""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer


def serve(
    models: Annotated[
        Path | None, typer.Option(help="Directory of published models [MULTIRANK_MODELS_DIR]")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address [MULTIRANK_HOST]")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 picks one [MULTIRANK_PORT]")] = None,
) -> None:
    """Serve the published models. Every other setting is a MULTIRANK_ variable: see the README."""
    import uvicorn

    from service.app import create_app
    from service.settings import SettingsInvalid, load_settings

    given = {"models_dir": models, "host": host, "port": port}
    try:
        settings = load_settings({name: v for name, v in given.items() if v is not None})
    except SettingsInvalid as error:
        typer.echo(error, err=True)
        raise typer.Exit(2) from error
    logging.basicConfig(
        level=settings.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    # uvicorn drains, then raises the signal again: a stop that was asked for ends with 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        access_log=False,
        proxy_headers=False,
        log_config=None,
        timeout_graceful_shutdown=30,
    )


def register(app: typer.Typer) -> None:
    """Add `serve`."""
    app.command()(serve)
