"""The `multirank` command: every sub-command in one place. Heavy imports wait until needed."""

from __future__ import annotations

import typer

from multirank import deployment, features, importing, ranking, serving, training
from multirank.fusion import commands as fusion
from multirank.replay import commands as replay

app = typer.Typer(
    name="multirank",
    help="Train, export, publish, serve and rank with multi-task models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
training.register(app)
deployment.register(app)
serving.register(app)
ranking.register(app)
importing.register(app)
replay.register(app)
app.add_typer(features.app, name="features")
app.add_typer(fusion.app, name="fusion")


def main() -> None:
    """Entry point of the `multirank` command."""
    app()
