"""`multirank serve`: the scorer, as one uvicorn process or as several that share a port."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:  # heavy imports wait until needed
    from service.settings import Settings

DRAIN_S = 30
"""Longest that accepted requests are worked on after SIGTERM, seconds."""

UVICORN: dict[str, Any] = {
    "loop": "uvloop",
    "http": "httptools",
    "access_log": False,
    "proxy_headers": False,
    "log_config": None,
    "timeout_graceful_shutdown": DRAIN_S,
}
"""How every process of the service runs uvicorn."""


def serve(
    models: Annotated[
        Path | None, typer.Option(help="Directory of published models [MULTIRANK_MODELS_DIR]")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address [MULTIRANK_HOST]")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 picks one [MULTIRANK_PORT]")] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Processes; 0: one for each usable core [MULTIRANK_WORKERS]"),
    ] = None,
) -> None:
    """Serve the published models. Every other setting is a MULTIRANK_ variable: see the README."""
    from service.cores import usable_cores
    from service.features.deployment import DeploymentInvalid, parse_deployment
    from service.settings import SettingsInvalid, load_settings

    options = {"models_dir": models, "host": host, "port": port, "workers": workers}
    given = {name: value for name, value in options.items() if value is not None}
    try:
        settings = load_settings(given)
        if settings.redis_url is not None:
            parse_deployment(settings.redis_url)
    except SettingsInvalid as error:
        typer.echo(error, err=True)
        raise typer.Exit(2) from error
    except DeploymentInvalid as error:
        typer.echo(f"MULTIRANK_REDIS_URL: {error}", err=True)
        raise typer.Exit(2) from error
    count = settings.workers or usable_cores()
    if count > 1:
        _serve_together(settings, given, count)
    else:
        _serve_alone(settings)


def _serve_together(settings: Settings, options: Mapping[str, object], count: int) -> None:
    from multirank.supervisor import CannotStart, supervise

    start_logging(settings, "supervisor ")
    try:
        supervise(settings, options, count, DRAIN_S)
    except CannotStart as error:
        typer.echo(error, err=True)
        raise typer.Exit(1) from error


def _serve_alone(settings: Settings) -> None:
    import uvicorn

    from multirank.port import listening_socket
    from multirank.server import ListeningServer
    from service.app import create_app

    start_logging(settings)
    stop_with_0()
    host, port = settings.host, settings.port
    try:
        listener = listening_socket(host, port, settings.reuse_port)
    except OSError as error:
        typer.echo(f"cannot listen on {host} port {port}: {error.strerror}", err=True)
        raise typer.Exit(1) from error
    with suppress(KeyboardInterrupt):  # SIGINT, raised again after draining
        app = create_app(settings)
        may_accept = app.state.service.may_accept
        ListeningServer(uvicorn.Config(app, **UVICORN), may_accept, listener).run(sockets=[])


def start_logging(settings: Settings, who: str = "") -> None:
    """Write log lines to standard error; `who` tells processes of one service apart."""
    logging.basicConfig(
        level=settings.log_level.upper(),
        format=f"%(asctime)s %(levelname)s {who}%(name)s: %(message)s",
        stream=sys.stderr,
    )


def stop_with_0() -> None:
    """End with 0 on SIGTERM: uvicorn drains, then raises the signal again."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))


def register(app: typer.Typer) -> None:
    """Add `serve`."""
    app.command()(serve)
