"""`multirank train`, `export`, `publish`, `run` and `compare`: from a YAML file to a version."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from service.fusion.compile import compile_fusion
from service.fusion.directory import parse_fusions
from service.fusion.errors import FusionError

if TYPE_CHECKING:  # heavy imports wait until needed
    from model_export.config import Config

ConfigFile = Annotated[Path, typer.Argument(help="YAML file, such as examples/movielens.yaml")]
Runs = Annotated[Path, typer.Option(help="Where run directories are")]
Models = Annotated[
    Path, typer.Option(envvar="MULTIRANK_MODELS_DIR", help="Where published models are")
]
_RUNS, _MODELS = Path("runs"), Path("models")


def register(app: typer.Typer) -> None:
    """Add the training commands to the command line."""
    for command in (run, train, export, publish, compare):
        app.command()(command)


def run(config: ConfigFile, runs: Runs = _RUNS, models: Models = _MODELS) -> None:
    """Train, export and publish."""
    with _reported():
        from model_export import pipeline

        pipeline.run(_loaded(config), runs, models, Console())


def train(
    config: ConfigFile,
    runs: Runs = _RUNS,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on after the last epoch of an interrupted training")
    ] = False,
) -> None:
    """Train into a run directory and evaluate on held-out data; torchrun starts several."""
    with _reported():
        from model_export import pipeline

        loaded = _loaded(config)
        directory = pipeline.train(loaded, runs / loaded.name, Console(), resume=resume)
        typer.echo(f"run: {directory}")


def export(config: ConfigFile, runs: Runs = _RUNS) -> None:
    """Export the finished run of a configuration as a bundle, and check it against torch."""
    with _reported():
        from model_export import config as config_file
        from model_export import pipeline

        bundle = pipeline.export(runs / config_file.load(config).name, Console())
        typer.echo(f"bundle: {bundle}")


def publish(config: ConfigFile, runs: Runs = _RUNS, models: Models = _MODELS) -> None:
    """Publish the exported bundle of a configuration as the next version of its model."""
    with _reported():
        from model_export import config as config_file
        from model_export import pipeline

        pipeline.publish(runs / config_file.load(config).name, models, Console())


def compare(
    configs: Annotated[list[Path], typer.Argument(help="YAML files")],
    seeds: Annotated[
        str, typer.Option(help="Comma-separated seeds; each file's own when left out")
    ] = "",
    runs: Runs = _RUNS,
) -> None:
    """Print held-out metrics of several configurations side by side; trains what is not there."""
    try:
        numbers = [int(seed) for seed in seeds.split(",") if seed]
    except ValueError as error:
        raise typer.BadParameter(f"--seeds: expected numbers such as 1,2,3: {error}") from error
    with _reported():
        from model_export import comparison

        comparison.compare(configs, numbers, runs, Console())


def _loaded(file: Path) -> Config:
    """A configuration whose formula fits its tasks and features: found now, not after training."""
    from model_export import config as config_file
    from model_export import fusions
    from model_export.errors import ConfigInvalid

    config = config_file.load(file)
    if config.fusion is not None:
        tasks = [task.name for task in config.tasks]
        kinds = {feature.key: feature.kind for feature in config.features}
        parsed = parse_fusions({"default": fusions.text_of(config.fusion).encode()})
        try:
            for mistake in parsed.mistakes.values():
                raise mistake
            compile_fusion(parsed.usable["default"], tasks, kinds)
        except FusionError as error:
            raise ConfigInvalid(f"{file}: fusion: {error}") from error
    return config


@contextmanager
def _reported() -> Iterator[None]:
    """End the command with a message, not a traceback, on errors that a person can mend."""
    try:
        import onnxscript  # noqa: F401
        import torch  # noqa: F401
    except ModuleNotFoundError as error:
        typer.echo(f"{error.name} is not installed: pip install 'multirank[train]'", err=True)
        raise typer.Exit(1) from error
    from bundle.errors import BundleError
    from model_export.errors import TrainingError

    try:
        yield
    except (TrainingError, BundleError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
