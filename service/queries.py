"""The near end of a request: a body -> a checked Query, or every field that is wrong."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from service import schemas
from service.bodies import BodyFormat
from service.errors import FieldError, InvalidRequest, TooManyCandidates
from service.values import MAX_ID_LENGTH, FusionChoice, Id, Keys, Query

_UNION_TAGS = {"#rows", "#columns", "#name", "#object"}
_ID_TAGS = {"constrained-str", "constrained-int"}
_MESSAGES = {
    "extra_forbidden": "no such field",
    "model_type": "must be an object",
    "dict_type": "must be an object",
    "list_type": "must be a list",
}
_ID_TYPES = {"string_type", "int_type"}


def new_request_id() -> str:
    """A request id for clients that did not send one."""
    return f"{random.getrandbits(64):016x}"


def read_content(body: bytes, form: BodyFormat) -> Any:
    """The objects that a body holds.

    Raises:
        InvalidRequest: the body is not of its form.
    """
    try:
        return form.loads(body)
    except ValueError as error:
        raise InvalidRequest.at("body", f"not {form.name}: {error}") from error


def request_id_of(content: Any) -> str | None:
    """The request id in a body, which may be wrong in every other respect."""
    found = content.get("request_id") if isinstance(content, dict) else None
    return found if isinstance(found, str) and 0 < len(found) <= schemas.MAX_REQUEST_ID else None


def parse_query(
    content: Any, request_id: str, arrived: float, timeout_s: float, max_candidates: int
) -> tuple[Query, bool]:
    """Check a request against the schema.

    Args:
        content: the body's objects. A column of ids in it may be cut short by the check.
        request_id: what the answer will be known by.
        arrived: time.monotonic() seconds. timeout_s: the server's limit, seconds.

    Returns:
        The query, and whether the answer is wanted as columns.

    Raises:
        InvalidRequest: not of the schema; names every field that is wrong.
        TooManyCandidates: more than `max_candidates`.
    """
    request, ids, kinds = _parse(content)
    features = _item_features(request.candidates)
    if len(ids) > max_candidates:
        raise TooManyCandidates(
            f"candidates: {len(ids)} candidates, at most {max_candidates} are allowed"
        )
    keys = _distinct_keys(ids, kinds)
    for name, column in features.items():
        if len(column) != len(ids):
            raise InvalidRequest.at(
                f"candidates.features.{name}",
                f"has {len(column)} values for {len(ids)} ids",
            )
    if request.timeout_ms is not None:
        timeout_s = min(timeout_s, request.timeout_ms / 1000)
    query = Query(
        request_id=request_id,
        model=request.model,
        version=request.version,
        user_key=None if request.user.id is None else str(request.user.id),
        user_features=request.user.features,
        context=request.context,
        item_ids=ids,
        item_keys=keys,
        item_features=features,
        fusion=_fusion_choice(request.fusion),
        top_k=request.top_k,
        explain=request.explain,
        arrived=arrived,
        deadline=arrived + timeout_s,
    )
    return query, request.format == "columns"


def _parse(content: Any) -> tuple[schemas.RankRequest, Sequence[Id], set[type]]:
    """Check the schema; the request, its ids, and of which types they are.

    A column of ids is taken out before and checked here: the schema's own check of each id in
    turn is most of the time that parsing takes.
    """
    candidates = content.get("candidates") if isinstance(content, dict) else None
    column: Sequence[Id] = []
    kinds: set[type] = set()
    if isinstance(candidates, dict) and isinstance(candidates.get("ids"), list):
        column = candidates["ids"]
        kinds = set(map(type, column))
        if kinds == {int} or (kinds and kinds <= {int, str} and _lengths_fit(column)):
            candidates["ids"] = column[:1]
    try:
        request = schemas.RankRequest.model_validate(content)
    except ValidationError as error:
        raise InvalidRequest(_field_errors(error)) from error
    if isinstance(request.candidates, schemas.CandidateColumns):
        return request, column, kinds
    ids = [row.id for row in request.candidates]
    return request, ids, set(map(type, ids))


def _distinct_keys(ids: Sequence[Id], kinds: set[type]) -> Keys:
    numbers = _whole_numbers(ids, kinds)
    texts = list(map(str, ids)) if numbers is None else []
    if len(set(ids if numbers is not None else texts)) < len(ids):
        twice = [key for key, count in Counter(map(str, ids)).items() if count > 1]
        raise InvalidRequest.at(
            "candidates.ids", f"duplicate ids: {', '.join(twice[:5])}; send each candidate once"
        )
    return texts if numbers is None else numbers


def _whole_numbers(ids: Sequence[Id], kinds: set[type]) -> npt.NDArray[np.int64] | None:
    if kinds != {int}:
        return None
    try:
        return np.array(ids, np.int64)
    except OverflowError:
        return None


def _lengths_fit(ids: Sequence[Id]) -> bool:
    lengths = {len(each) for each in ids if type(each) is str}
    return not lengths or (min(lengths) > 0 and max(lengths) <= MAX_ID_LENGTH)


def _item_features(
    candidates: schemas.CandidateColumns | list[schemas.CandidateRow],
) -> Mapping[str, Sequence[Any]]:
    if isinstance(candidates, schemas.CandidateColumns):
        return candidates.features
    names = {name: None for row in candidates for name in row.features}
    return {name: [row.features.get(name) for row in candidates] for name in names}


def _fusion_choice(fusion: str | schemas.Fusion | None) -> FusionChoice:
    if fusion is None:
        return FusionChoice()
    if isinstance(fusion, str):
        return FusionChoice(fusion)
    return FusionChoice(fusion.name or "default", fusion.weights, fusion.formula)


def _field_errors(error: ValidationError) -> list[FieldError]:
    found: dict[str, str] = {}
    for each in error.errors(include_url=False, include_context=False, include_input=False):
        parts = [part for part in each["loc"] if part not in _UNION_TAGS]
        message = _MESSAGES.get(each["type"], each["msg"].removeprefix("Value error, "))
        if parts and parts[-1] in _ID_TAGS:  # the member of the union that an id was tried as
            parts.pop()
            if each["type"] in _ID_TYPES:
                message = "must be a string or an integer"
        if each["type"] == "too_short" and parts[0] == "candidates":
            parts, message = ["candidates", "ids"], "at least one id is needed"
        found.setdefault(_path(parts) or "body", message)
    return [FieldError(loc, msg) for loc, msg in found.items()]


def _path(parts: Sequence[str | int]) -> str:
    path = ""
    for part in parts:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return path.removeprefix(".")
