"""`models/<model>/deployment.json`: read, and replaced as a whole; no writer loses another's work.

A writer holds the lock, reads, changes, writes a temporary file, fsyncs and renames it. A reader
needs no lock: it sees the file of before or the file of after.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from bundle.store import versions
from service.files import locked, read_plain
from service.lifecycle.deployment import (
    Action,
    Deployment,
    DeploymentInvalid,
    Limits,
    Roles,
)

DEPLOYMENT_FILE = "deployment.json"
_LOCK_FILE = ".deployment.lock"


class ChangedMeanwhile(DeploymentInvalid):
    """The file is not of the generation that the change was meant for."""


Change = Callable[[Deployment, Sequence[int]], Roles]
"""A deployment and the published versions -> the next roles; raises DeploymentInvalid."""


def read(models: Path, model: str) -> Deployment:
    """The deployment of a model; without a file, that of a model that follows the newest version.

    Raises:
        DeploymentInvalid: the file is not a deployment; says which field.
    """
    path = models / model / DEPLOYMENT_FILE
    try:
        return Deployment.model_validate_json(read_plain(path))
    except FileNotFoundError:
        return Deployment()
    except OSError as error:
        raise DeploymentInvalid(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "deployment"
        raise DeploymentInvalid(f"{path}: {where}: {first['msg']}") from error


def change(
    models: Path,
    model: str,
    action: Action,
    to: Change,
    *,
    by: str,
    reason: str = "",
    generation: int | None = None,
    limits: Limits | None = None,
) -> tuple[Deployment, Deployment]:
    """Replace a model's deployment by the next one.

    Args:
        by: who changes it. reason: why, for the history.
        generation: the one that the change is meant for; None for whatever is there.
        limits: the model's new limits; None keeps them.

    Returns:
        The deployment before and after; the same one twice when nothing changes.

    Raises:
        DeploymentInvalid: the model is not published, or the change does not fit.
        ChangedMeanwhile: `generation` is not the file's.
        OSError: the file cannot be written.
    """
    if not (published := versions(models, model)):
        raise DeploymentInvalid(f"{models / model}: no version is published")
    with locked(models / model / _LOCK_FILE):
        before = read(models, model)
        if generation is not None and before.generation != generation:
            raise ChangedMeanwhile(
                f"{model}: the deployment is of generation {before.generation}, the change was "
                f"meant for {generation}"
            )
        try:
            roles = to(before, published)
        except ValidationError as error:
            raise DeploymentInvalid(f"{model}: {error.errors()[0]['msg']}") from error
        if roles == before.roles and limits in (None, before.limits):
            return before, before
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        after = before.changed(roles, action, by, reason, at, limits)
        _replace(models / model / DEPLOYMENT_FILE, serialise(after))
    return before, after


def serialise(deployment: Deployment) -> bytes:
    """The canonical bytes of a deployment."""
    content = deployment.model_dump(mode="json")
    return json.dumps(content, indent=1, sort_keys=True).encode() + b"\n"


def _replace(path: Path, content: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        Path(temporary).rename(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
