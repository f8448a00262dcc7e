"""`multirank deploy`, `promote`, `rollback`: which version is served, to whom, and back again."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

if TYPE_CHECKING:  # heavy imports wait until needed
    from pydantic import BaseModel

    from service.lifecycle.deployment import Deployment

    M = TypeVar("M", bound=BaseModel)

ModelArgument = Annotated[str, typer.Argument(help="The model")]
Models = Annotated[
    Path, typer.Option(envvar="MULTIRANK_MODELS_DIR", help="Where published models are")
]
Reason = Annotated[str, typer.Option(help="Why, for the history")]
Generation = Annotated[int | None, typer.Option(help="Change only a deployment of this generation")]
_MODELS = Path("models")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (deploy, promote, rollback):
        app.command()(command)


def deploy(
    model: ModelArgument,
    version: Annotated[
        str, typer.Argument(help="A version's number; newest: follow what is published")
    ] = "",
    canary: Annotated[
        float | None, typer.Option(min=0, max=100, help="Let it answer so many percent of users")
    ] = None,
    shadow: Annotated[
        float | None, typer.Option(min=0, max=1, help="Let it score that share of requests along")
    ] = None,
    sample: Annotated[
        float, typer.Option(min=0, max=1, help="Share of requests that a canary is compared on")
    ] = 1.0,
    promote_after: Annotated[
        int | None, typer.Option(min=1, help="Promote a canary after so many good comparisons")
    ] = None,
    guard: Annotated[
        list[str] | None, typer.Option(help="What a canary must keep to: min_kendall_tau=0.5, ...")
    ] = None,
    pin: Annotated[
        list[int] | None, typer.Option(help="Keep loaded for requests that name it; 0: none")
    ] = None,
    limit: Annotated[
        list[str] | None, typer.Option(help="Limit of the model: max_candidates=500, ...")
    ] = None,
    no_shadow: Annotated[bool, typer.Option("--no-shadow", help="End the shadow")] = False,
    models: Models = _MODELS,
    reason: Reason = "",
    generation: Generation = None,
) -> None:
    """Make VERSION stable, or a canary, or a shadow; or set what stays loaded, and limits."""
    from bundle.store import load_version, versions
    from service.lifecycle import deployment
    from service.lifecycle.deployment import NEWEST, Canary, Guard, Limits, Roles, Shadow, Stable

    if not (version or pin is not None or limit is not None or no_shadow):
        _stop("name a VERSION, or give --pin, --limit or --no-shadow")
    if not version and (canary is not None or shadow is not None):
        _stop("name the VERSION that is to be the canary or the shadow")
    if canary is not None and shadow is not None:
        _stop("a version is a canary or a shadow, not both")
    if canary is None and (guard or promote_after):
        _stop("--guard and --promote-after belong to --canary")
    stable: Stable = NEWEST if version in ("", NEWEST) else _number(version)

    def to(now: Deployment, published: Sequence[int]) -> Roles:
        roles = now.roles
        if no_shadow:
            roles = deployment.start_shadow(roles, None, published)
        if canary is not None:
            started = Canary(
                version=_number(version),
                percent=canary,
                sample=sample,
                promote_after=promote_after,
                guard=_fields(Guard, "--guard", guard),
            )
            roles = deployment.start_canary(roles, started, published)
        elif shadow is not None:
            along = Shadow(version=_number(version), sample=shadow)
            roles = deployment.start_shadow(roles, along, published)
        elif version:
            roles = deployment.deploy(roles, stable, published)
        if pin is not None:
            roles = deployment.pin(roles, [each for each in pin if each], published)
        return roles

    with _reported():
        if stable in versions(models, model):
            load_version(models, model, int(stable))
        limits = None if limit is None else _fields(Limits, "--limit", limit)
        action = "canary" if canary is not None else "shadow" if shadow is not None else "deploy"
        if not version:
            action = "limits" if limit is not None else "pin" if pin is not None else "shadow"
        _change(models, model, action, to, reason, generation, limits)


def promote(
    model: ModelArgument,
    require: Annotated[
        list[str] | None, typer.Option(help="Only if it kept to this: min_kendall_tau=0.5, ...")
    ] = None,
    url: Annotated[str, typer.Option(help="The service that has compared it")] = (
        "http://localhost:8000"
    ),
    models: Models = _MODELS,
    reason: Reason = "",
    generation: Generation = None,
) -> None:
    """Make the canary stable; with --require, only if the service has seen it to be good."""
    from service.lifecycle import deployment
    from service.lifecycle.comparison import lacking
    from service.lifecycle.deployment import Guard

    with _reported():
        if require:
            guard = _fields(Guard, "--require", require)
            if wrong := lacking(guard, _compared(url, model)):
                raise deployment.DeploymentInvalid(f"{model}: not promoted: {'; '.join(wrong)}")
        _change(
            models,
            model,
            "promote",
            lambda now, published: deployment.promote(now.roles),
            reason,
            generation,
        )


def rollback(
    model: ModelArgument,
    models: Models = _MODELS,
    reason: Reason = "",
    generation: Generation = None,
) -> None:
    """End the canary; without one, go back to the stable version before."""
    from service.lifecycle import deployment

    with _reported():
        _change(models, model, "rollback", deployment.rollback, reason, generation)


def _change(
    models: Path,
    model: str,
    action: Any,
    to: Callable[[Deployment, Sequence[int]], Any],
    reason: str,
    generation: int | None,
    limits: Any = None,
) -> None:
    from service.lifecycle.deployment import in_words
    from service.lifecycle.deployment_file import change

    before, after = change(
        models,
        model,
        action,
        to,
        by=operator(),
        reason=reason,
        generation=generation,
        limits=limits,
    )
    if after == before:
        typer.echo(f"{model}: nothing to change; generation {in_words(after)}")
    else:
        typer.echo(f"{model}: was generation {in_words(before)}")
        typer.echo(f"{model}: now generation {in_words(after)}")


def _compared(url: str, model: str) -> Any:
    """The comparison of a model's canary, as a service has it."""
    import urllib.request

    import orjson

    where = f"{url.rstrip('/')}/models/{model}/compare"
    try:
        with urllib.request.urlopen(where, timeout=10) as answer:
            return orjson.loads(answer.read())["canary"]
    except (OSError, ValueError) as error:
        typer.echo(f"error: {where}: {error}", err=True)
        raise typer.Exit(1) from error


def _fields(kind: type[M], option: str, given: Sequence[str] | None) -> M:
    """NAME=VALUE options as a model; ends the command when one is wrong."""
    from pydantic import ValidationError

    pairs = [each.partition("=") for each in given or ()]
    try:
        return kind.model_validate_strings({n: value for n, _, value in pairs}, strict=False)
    except ValidationError as error:
        first = error.errors()[0]
        known = ", ".join(kind.model_fields)
        _stop(f"{option} {'.'.join(map(str, first['loc']))}: {first['msg']}; known: {known}")


def _number(version: str) -> int:
    if not (version.isascii() and version.isdecimal() and int(version)):
        _stop(f"VERSION: a number or newest, not {version!r}")
    return int(version)


@contextmanager
def _reported() -> Iterator[None]:
    """End the command with a message, not a traceback, on what a person can mend."""
    from bundle.errors import BundleError
    from service.lifecycle.deployment import DeploymentInvalid

    try:
        yield
    except (DeploymentInvalid, BundleError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    except OSError as error:
        typer.echo(f"error: {error.filename}: {error.strerror}", err=True)
        raise typer.Exit(1) from error


def _stop(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(2)


def operator() -> str:
    """Who runs this command, for a history."""
    return f"{getpass.getuser()}@{socket.gethostname()}"
