"""Every /admin route. A room that has something to change adds its calls to `admin_router`."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from starlette.exceptions import HTTPException

from service.admin.access import Access, json_only
from service.admin.deployments import add_deployments
from service.admin.fusions import add_fusions
from service.openapi import problems
from service.wiring import Service

_METHODS = ["GET", "PUT", "POST", "PATCH", "DELETE"]


def admin_router(service: Service) -> APIRouter:
    """The routes under /admin, each behind the token."""
    router = APIRouter(
        prefix="/admin",
        dependencies=[Depends(Access(service.settings.admin_token)), Depends(json_only)],
        responses=problems(401, 403, 404, 409, 413, 415, 422),
    )

    add_deployments(router, service)
    add_fusions(router, service)

    @router.api_route("/{path:path}", methods=_METHODS, include_in_schema=False)
    async def unknown(path: str) -> None:  # last: a stranger learns nothing of what there is
        raise HTTPException(404, f"no admin call /admin/{path}; see /docs")

    return router
