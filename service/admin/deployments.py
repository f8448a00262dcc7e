"""/admin/models/<model>/...: the calls that change a deployment, as `multirank deploy` does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path as FilePath
from typing import Annotated

import orjson
from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from bundle.errors import BundleError
from bundle.stages import PLAIN_NAME
from bundle.store import load_version, versions
from service.admin.access import audit, operator
from service.errors import Conflict, ServiceError, UnknownModel
from service.lifecycle import deployment
from service.lifecycle.comparison import lacking
from service.lifecycle.deployment import (
    Action,
    Canary,
    Deployment,
    DeploymentInvalid,
    Guard,
    Limits,
    Shadow,
    Stable,
    Version,
)
from service.lifecycle.deployment_file import Change, change, read
from service.lifecycle.report import comparison_report
from service.wiring import Service

Model = Annotated[str, Path(max_length=128, pattern=PLAIN_NAME)]


class _Call(BaseModel):
    """What every change may bring: why, and the generation that it is meant for."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str, Field(max_length=1000)] = ""
    generation: Annotated[int, Field(ge=0)] | None = None


class DeployCall(_Call):
    """The version that is to be stable; "newest" follows what is published."""

    version: Stable


class CanaryCall(_Call):
    """The version that is to answer a share of the users."""

    canary: Canary


class ShadowCall(_Call):
    """The version that is to score along; null ends it."""

    shadow: Shadow | None


class PinCall(_Call):
    """All versions that are to stay loaded for requests that name them."""

    versions: Annotated[list[Version], Field(max_length=16)]


class LimitsCall(_Call):
    """The model's own limits; what is left out is the service's."""

    limits: Limits


class PromoteCall(_Call):
    """What the canary must have kept to on the requests that were compared, if anything."""

    require: Guard | None = None


def add_deployments(router: APIRouter, service: Service) -> None:
    """Add the calls."""
    models = service.settings.models_dir

    async def apply(
        request: Request,
        model: str,
        action: Action,
        call: _Call,
        to: Change,
        limits: Limits | None = None,
        check: Sequence[int] = (),
    ) -> Response:
        who = operator(request)
        _check_known(models, model)
        for version in check:
            if reason := service.follower.refused(model, version):
                raise Conflict(f"{model}: version {version} was refused: {reason}")

        def changed() -> tuple[Deployment, Deployment]:
            for version in set(check) & set(versions(models, model)):
                load_version(models, model, version, service.digests)
            return change(
                models,
                model,
                action,
                to,
                by=who,
                reason=call.reason,
                generation=call.generation,
                limits=limits,
            )

        try:
            before, after = await asyncio.to_thread(changed)
        except (DeploymentInvalid, BundleError) as error:
            raise Conflict(str(error)) from error
        except TimeoutError as error:
            raise Conflict(f"{error.filename}: {error.strerror}") from error
        except OSError as error:
            raise ServiceError(f"{models / model}: cannot be written: {error.strerror}") from error
        audit(who, f"{action} {model}", _in_short(before), _in_short(after))
        service.follower.wake()
        return _answer(after)

    @router.get("/models/{model}/deployment", response_model=Deployment)
    async def show(model: Model) -> Response:
        """The deployment with its history."""
        _check_known(models, model)
        try:
            return _answer(await asyncio.to_thread(read, models, model))
        except DeploymentInvalid as error:
            raise Conflict(str(error)) from error

    @router.post("/models/{model}/deploy", response_model=Deployment)
    async def deploy(model: Model, call: DeployCall, request: Request) -> Response:
        """Make a version stable at once."""

        def to(now: Deployment, published: Sequence[int]) -> deployment.Roles:
            return deployment.deploy(now.roles, call.version, published)

        check = [call.version] if isinstance(call.version, int) else []
        return await apply(request, model, "deploy", call, to, check=check)

    @router.post("/models/{model}/canary", response_model=Deployment)
    async def canary(model: Model, call: CanaryCall, request: Request) -> Response:
        """Let a version answer a share of the users."""

        def to(now: Deployment, published: Sequence[int]) -> deployment.Roles:
            return deployment.start_canary(now.roles, call.canary, published)

        return await apply(request, model, "canary", call, to, check=[call.canary.version])

    @router.post("/models/{model}/shadow", response_model=Deployment)
    async def shadow(model: Model, call: ShadowCall, request: Request) -> Response:
        """Let a version score along, or end that."""

        def to(now: Deployment, published: Sequence[int]) -> deployment.Roles:
            return deployment.start_shadow(now.roles, call.shadow, published)

        check = [call.shadow.version] if call.shadow else []
        return await apply(request, model, "shadow", call, to, check=check)

    @router.post("/models/{model}/promote", response_model=Deployment)
    async def promote(model: Model, call: PromoteCall, request: Request) -> Response:
        """Make the canary stable."""
        _check_known(models, model)
        if call.require is not None:
            report = comparison_report(service.registry.model(model), service.board.reports())
            if wrong := lacking(call.require, report["canary"]):
                raise Conflict(f"{model}: not promoted: {'; '.join(wrong)}")

        def to(now: Deployment, published: Sequence[int]) -> deployment.Roles:
            return deployment.promote(now.roles)

        return await apply(request, model, "promote", call, to)

    @router.post("/models/{model}/rollback", response_model=Deployment)
    async def rollback(model: Model, call: _Call, request: Request) -> Response:
        """End the canary; without one, go back to the stable version before."""
        return await apply(request, model, "rollback", call, deployment.rollback)

    @router.post("/models/{model}/pin", response_model=Deployment)
    async def pin(model: Model, call: PinCall, request: Request) -> Response:
        """Keep exactly these versions loaded for requests that name them."""

        def to(now: Deployment, published: Sequence[int]) -> deployment.Roles:
            return deployment.pin(now.roles, call.versions, published)

        return await apply(request, model, "pin", call, to, check=call.versions)

    @router.post("/models/{model}/limits", response_model=Deployment)
    async def limits(model: Model, call: LimitsCall, request: Request) -> Response:
        """Set the model's own limits."""

        def to(now: Deployment, published: Sequence[int]) -> deployment.Roles:
            return now.roles

        return await apply(request, model, "limits", call, to, limits=call.limits)


def _check_known(models: FilePath, model: str) -> None:
    if not versions(models, model):
        raise UnknownModel(f"model: no version of {model!r} is published")


def _in_short(deployed: Deployment) -> dict[str, object]:
    return deployed.model_dump(mode="json", exclude={"history", "schema_version"})


def _answer(deployed: Deployment) -> Response:
    content = orjson.dumps(deployed.model_dump(mode="json"))
    return Response(content, media_type="application/json")
