"""The OpenAPI page of the endpoints that FastAPI does not route itself."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service import schemas
from service.bodies import JSON, MSGPACK
from service.problems import MEDIA_TYPE

_ROUTES: dict[str, tuple[str, tuple[type[BaseModel], type[BaseModel]]]] = {
    "/rank": (
        "Rank the candidates for the user",
        (schemas.RankResponse, schemas.RankColumnsResponse),
    ),
    "/score": (
        "Score the candidates on every task, without fusion, in the order of the request",
        (schemas.ScoreResponse, schemas.ScoreColumnsResponse),
    ),
}
_PROBLEM_STATUSES = (404, 413, 415, 422, 429, 500, 503, 504)


def document(app: FastAPI) -> None:
    """Add /rank, /score and their schemas to the page at /openapi.json."""
    routed = app.openapi

    def openapi() -> dict[str, Any]:
        page = routed()
        models: list[type[BaseModel]] = [schemas.RankRequest, schemas.Problem]
        for _, answers in _ROUTES.values():
            models.extend(answers)
        _, definitions = models_json_schema(
            [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
        )
        page["components"]["schemas"] |= definitions["$defs"]
        for path, (summary, answers) in _ROUTES.items():
            page["paths"][path] = {"post": _operation(path, summary, answers)}
        return page

    app.openapi = openapi  # type: ignore[method-assign]


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these problems."""
    content = {MEDIA_TYPE: {"schema": _reference(schemas.Problem)}}
    return {s: {"description": HTTPStatus(s).phrase, "content": content} for s in statuses}


def _operation(path: str, summary: str, answers: tuple[type[BaseModel], ...]) -> dict[str, Any]:
    request = _bodies(_reference(schemas.RankRequest))
    answer = _bodies({"anyOf": [_reference(each) for each in answers]})
    responses = {str(s): response for s, response in problems(*_PROBLEM_STATUSES).items()}
    return {
        "summary": summary,
        "operationId": path[1:],
        "requestBody": {"required": True, "content": request},
        "responses": {"200": {"description": "OK", "content": answer}, **responses},
    }


def _bodies(schema: dict[str, Any]) -> dict[str, Any]:
    return {form.media_type.decode(): {"schema": schema} for form in (JSON, MSGPACK)}


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}
