"""The roof: `create_app(settings)` wires the rooms together and puts HTTP around them.

Routes, the one error handler, the life span. What a ranking handler does is `answering.py`.
"""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any

import orjson
from fastapi import FastAPI, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import operator_schemas
from service.admin.routes import admin_router
from service.answering import Endpoint
from service.answers import ranked_answer, scored_answer
from service.bodies import ClientLeft, read_body
from service.errors import BodyTooLarge, FieldError, NotReady, ServiceError, UnknownModel
from service.lifecycle.report import comparison_report, model_report
from service.openapi import document, problems
from service.problems import on_error, problem
from service.queries import new_request_id
from service.settings import Settings
from service.wiring import Service, build
from service.worker import ALONE, Worker


class Scorer(FastAPI):
    """FastAPI, with the ranking endpoints before it."""

    endpoints: Mapping[str, ASGIApp] = MappingProxyType({})
    most_body_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request to its endpoint, or else, with a body of a limited size, to FastAPI."""
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
        elif endpoint := self.endpoints.get(scope["path"]):
            await endpoint(scope, receive, send)
        else:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await read_body(receive, self.most_body_bytes)
        except BodyTooLarge as error:
            await problem(error, new_request_id())(scope, receive, send)
            return
        except ClientLeft:
            return
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def whole() -> Message:
            return next(messages, None) or await receive()

        await super().__call__(scope, whole, send)


def create_app(settings: Settings, worker: Worker = ALONE) -> FastAPI:
    """The ASGI application."""
    service = build(settings, worker)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        # What is imported by now stays: a full collection of it would stall requests for 50 ms.
        gc.collect()
        gc.freeze()
        service.start()
        async with service.beside_others():
            yield
        await service.stop()

    app = Scorer(
        title="multirank",
        description="Multi-task ranking: features, all task scores, fusion, in one call.",
        version="0.1.0",
        lifespan=life,
        redirect_slashes=False,
    )
    app.state.service = service
    app.most_body_bytes = settings.max_body_bytes
    rooms, wait = (settings, service.metrics), service.registry.least_wait_s
    app.endpoints = {
        "/rank": Endpoint(*rooms, "rank", wait, service.pipeline.rank, ranked_answer),
        "/score": Endpoint(*rooms, "score", wait, service.pipeline.score, scored_answer),
    }
    _add_operations(app, service)
    app.include_router(admin_router(service))
    document(app)
    app.add_exception_handler(ServiceError, on_error)
    app.add_exception_handler(HTTPException, on_error)
    app.add_exception_handler(RequestValidationError, on_error)
    app.add_exception_handler(Exception, on_error)
    return app


def _add_operations(app: FastAPI, service: Service) -> None:
    @app.get("/models", response_model=operator_schemas.ModelsResponse)
    async def models() -> Response:
        board = service.board
        told = board.reports(), board.workers
        return _json({"models": [model_report(each, *told) for each in service.registry.models]})

    @app.get(
        "/models/{model}/compare",
        response_model=operator_schemas.Comparisons,
        responses=problems(404),
    )
    async def compare(model: str) -> Response:
        """A canary and a shadow beside the stable version, on the same requests."""
        known = {each.name: each for each in service.registry.models}
        if model not in known:
            raise UnknownModel(f"model: no model {model!r}; served: {', '.join(known) or 'none'}")
        return _json(comparison_report(known[model], service.board.reports()))

    @app.get("/healthz")
    async def healthz() -> Response:
        return _json({"status": "ok"})

    @app.get("/readyz", responses=problems(503))
    async def readyz() -> Response:
        return await _readiness(service)

    @app.get("/metrics", response_class=PlainTextResponse)
    def metrics() -> Response:  # on a thread: to add up workers takes milliseconds
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")


async def _readiness(service: Service) -> Response:
    models = service.registry.models
    without = [model.name for model in models if model.live is None]
    wrong: list[FieldError] = []
    if not models:
        wrong.append(FieldError("models", f"none in {service.settings.models_dir}"))
    elif not service.ready:
        wrong += [FieldError(f"models.{name}", "no version is ready") for name in without]
        wrong = wrong or [FieldError("models", "not all of them are loaded yet")]
    others = service.worker.others_not_ready()
    wrong += [FieldError(f"workers.{index}", "not ready") for index in others]
    store = service.features.store
    try:
        await store.ping()
        store_state = "ok"
    except ServiceError as error:
        store_state = error.detail
        if "error" in service.settings.feature_failures.values():
            wrong.append(FieldError("feature_store", error.detail))
    if wrong:
        not_ready = NotReady("; ".join(f"{each.loc}: {each.msg}" for each in wrong))
        return problem(not_ready, new_request_id(), wrong)
    state = {"name": store.name, "state": store_state}
    return _json({"status": "ready", "feature_store": state, "models_without_version": without})


def _json(content: dict[str, Any]) -> Response:
    return Response(orjson.dumps(content), media_type="application/json")
