"""Which model and which of its versions a command means, and how a command ends when it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:  # heavy imports wait until needed
    from bundle.manifest import Manifest
    from bundle.store import Bundle

ModelName = Annotated[str, typer.Option("--model", help="The model; the only one when left out")]
Models = Annotated[
    Path, typer.Option(envvar="MULTIRANK_MODELS_DIR", help="Where published models are")
]


def manifest_of(
    model: str, models: Path, version: int | None, bundle: Path | None
) -> tuple[Manifest, Path]:
    """The manifest that formulas are checked against, and where the model's own formulas are."""
    from bundle import store

    found = store.load(bundle) if bundle else bundle_of(model, models, version)
    return found.manifest, found.path.parent / "fusions"


def bundle_of(model: str, models: Path, version: int | None) -> Bundle:
    """A published version, verified; the newest one when none is named."""
    from bundle import store

    return store.load_version(models, model_name(model, models), version)


def model_name(model: str, models: Path) -> str:
    """The model that is named, or the only one; ends the command when there is no such one."""
    from bundle import store

    published = store.model_names(models)
    if not model and len(published) == 1:
        return published[0]
    if model not in published:
        wanted = f"no model '{model}'" if model else "name one with --model"
        stop(f"{models}: {wanted}; published: {', '.join(published) or 'none'}")
    return model


def deployed(model: str, models: Path) -> list[Manifest]:
    """The manifests of the versions that the deployment gives a part."""
    from bundle import store
    from service.lifecycle.deployment import NEWEST
    from service.lifecycle.deployment_file import read

    roles = read(models, model).roles
    stable = store.versions(models, model)[-1] if roles.stable == NEWEST else roles.stable
    others = [each.version for each in (roles.canary, roles.shadow) if each]
    wanted = dict.fromkeys([stable, *others, *roles.pinned])
    return [store.load_version(models, model, each).manifest for each in wanted]


def stop(message: str) -> NoReturn:
    """End the command."""
    typer.echo(message, err=True)
    raise typer.Exit(2)


@contextmanager
def reported() -> Iterator[None]:
    """End the command with a message, not a traceback, on mistakes that a person can mend."""
    from bundle.errors import BundleError
    from multirank.fusion.errors import FusionCommandError
    from service.fusion.errors import FusionError
    from service.lifecycle.deployment import DeploymentInvalid

    try:
        yield
    except (FusionError, FusionCommandError, BundleError, DeploymentInvalid) as error:
        typer.echo(error, err=True)
        raise typer.Exit(1) from error
    except OSError as error:
        typer.echo(f"{error.filename}: {error.strerror}", err=True)
        raise typer.Exit(1) from error
