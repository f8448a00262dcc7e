"""/admin/models/<model>/fusions/...: the calls that change formulas, as `multirank fusion` does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated

import orjson
from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from service.admin.access import audit, operator
from service.admin.deployments import Model
from service.errors import Conflict, InvalidRequest, ServiceError, UnknownModel
from service.fusion.errors import FusionError
from service.fusion.history import Entry, History
from service.lifecycle.formula_changes import Changed, put, rollback
from service.lifecycle.formulas import FUSIONS_DIR
from service.lifecycle.registry import Model as Served
from service.wiring import Service

Name = Annotated[str, Path(max_length=128, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]*$")]


class _Call(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PutCall(_Call):
    """What the file is to hold: YAML."""

    content: Annotated[str, Field(max_length=65_536)]


class RollbackCall(_Call):
    """The version to bring back, or how it begins; left out, the one before."""

    version: Annotated[str, Field(min_length=4, max_length=12)] | None = None


class ChangedFusion(BaseModel):
    """A change that was made; `before` is None for a file that was not there or not usable."""

    name: str
    before: str | None
    after: str
    remark: str


class FusionHistory(BaseModel):
    """All versions that were live under a name, oldest first."""

    entries: list[Entry]


def add_fusions(router: APIRouter, service: Service) -> None:
    """Add the calls."""
    models = service.settings.models_dir

    def served(name: str) -> Served:
        for model in service.registry.models:
            if model.name == name and model.loaded:
                return model
        raise UnknownModel(f"model: no version of {name!r} is served")

    async def apply(request: Request, model: Served, change: Callable[[str], Changed]) -> Response:
        who = operator(request)
        try:
            changed = await asyncio.to_thread(change, who)
        except OSError as error:
            raise ServiceError(f"{error.filename}: cannot be written: {error.strerror}") from error
        audit(who, f"fusion {model.name} {changed.name}", changed.before, changed.after)
        await service.follower.follow_fusions(model)
        return _answer(ChangedFusion(**vars(changed)))

    @router.put("/models/{model}/fusions/{name}", response_model=ChangedFusion)
    async def replace(model: Model, name: Name, call: PutCall, request: Request) -> Response:
        """Write or replace a formula, or `rules`, if it fits every version that is served."""
        target = served(model)
        manifests = [each.manifest for each in target.loaded.values() if not each.retired]

        def change(who: str) -> Changed:
            return put(models / model / FUSIONS_DIR, name, call.content.encode(), manifests, who)

        try:
            return await apply(request, target, change)
        except FusionError as error:
            raise InvalidRequest.at("content", str(error)) from error

    @router.post("/models/{model}/fusions/{name}/rollback", response_model=ChangedFusion)
    async def bring_back(
        model: Model, name: Name, call: RollbackCall, request: Request
    ) -> Response:
        """Bring back what was live under a name, if it fits every version that is served."""
        target = served(model)
        manifests = [each.manifest for each in target.loaded.values() if not each.retired]

        def change(who: str) -> Changed:
            return rollback(models / model / FUSIONS_DIR, name, call.version, manifests, who)

        try:
            return await apply(request, target, change)
        except FusionError as error:
            raise Conflict(str(error)) from error

    @router.get("/models/{model}/fusions/{name}/history", response_model=FusionHistory)
    async def history(model: Model, name: Name) -> Response:
        """Which version was live under a name since when, oldest first."""
        served(model)
        try:
            entries = await asyncio.to_thread(History(models / model / FUSIONS_DIR).entries, name)
        except FusionError as error:
            raise Conflict(str(error)) from error
        return _answer(FusionHistory(entries=entries))


def _answer(content: BaseModel) -> Response:
    return Response(orjson.dumps(content.model_dump(mode="json")), media_type="application/json")
