"""The wire of ranking: what clients send and get, as pydantic models, and the form of every error.

The OpenAPI page is made from these. Known to the ends of a request and to `app.py` alone; the
rooms take plain values.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, JsonValue, Tag, model_validator

from service.values import MAX_ID_LENGTH

_INT64 = 2**63
MAX_REQUEST_ID = 128

Id = (
    Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH)]
    | Annotated[int, Field(ge=-_INT64, lt=2 * _INT64)]
)
Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class User(_Wire):
    """The user to rank for. Features given here override stored ones; null is "not given"."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": ["id"], "properties": {"id": {"not": {"type": "null"}}}},
                {"required": ["features"], "properties": {"features": {"minProperties": 1}}},
            ]
        }
    )

    id: Id | None = None
    features: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _known_somehow(self) -> Self:
        if self.id is None and not self.features:
            raise ValueError("give id, or features, or both")
        return self


class CandidateColumns(_Wire):
    """Candidates as columns: the fast form. Each feature column is as long as `ids`."""

    ids: Annotated[list[Id], Field(min_length=1)]
    features: dict[str, list[Any]] = Field(default_factory=dict)


class CandidateRow(_Wire):
    """One candidate of the row form."""

    id: Id
    features: dict[str, Any] = Field(default_factory=dict)


class Fusion(_Wire):
    """A fusion by name, with weights overridden; or a formula, where the operator allows it."""

    name: Annotated[str, Field(max_length=128)] | None = None
    weights: dict[str, Finite] = Field(default_factory=dict)
    formula: Annotated[str, Field(min_length=1, max_length=4096)] | None = None

    @model_validator(mode="after")
    def _one_formula(self) -> Self:
        if self.name is not None and self.formula is not None:
            raise ValueError("give a name or a formula, not both")
        return self


Candidates = Annotated[
    Annotated[CandidateColumns, Tag("#columns")]
    | Annotated[list[CandidateRow], Tag("#rows"), Field(min_length=1)],
    Discriminator(lambda value: "#rows" if isinstance(value, list) else "#columns"),
]
FusionChoice = Annotated[
    Annotated[str, Tag("#name")] | Annotated[Fusion, Tag("#object")],
    Discriminator(lambda value: "#name" if isinstance(value, str) else "#object"),
]


class RankRequest(_Wire):
    """One user and the candidates to rank for them."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"user": {"id": "196"}, "candidates": {"ids": ["242", "302", "377"]}}]
        }
    )

    request_id: Annotated[str, Field(min_length=1, max_length=MAX_REQUEST_ID)] | None = None
    model: Annotated[str, Field(max_length=128)] | None = None
    version: Annotated[int, Field(ge=1, lt=_INT64)] | None = None
    user: User
    context: dict[str, Any] = Field(default_factory=dict)
    candidates: Candidates
    fusion: FusionChoice | None = None
    top_k: Annotated[int, Field(ge=1, lt=_INT64)] | None = None
    timeout_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    format: Literal["rows", "columns"] = "rows"
    explain: bool = False


class ModelVersion(BaseModel):
    """The version that every score of an answer comes from."""

    name: str
    version: int


class FusionUsed(BaseModel):
    """The formula that every fused score of an answer comes from, and the rule that chose it."""

    name: str
    version: str
    weights: dict[str, float]
    rule: str | None


class RowCounts(BaseModel):
    """Rows of one entity that were not as they should be."""

    missing: int
    stale: int
    defaulted: int


class Degraded(BaseModel):
    """What of the answer is not as it should be, and why."""

    features: dict[str, RowCounts]
    reasons: list[str]


class TimingMs(BaseModel):
    """Milliseconds spent."""

    features: float
    queue: float
    score: float
    fuse: float
    total: float


class ItemExplanation(BaseModel):
    """Why an item is where it is: `contributions` add up to its score minus `baseline`."""

    contributions: dict[str, float | None]
    baseline: float | None
    rank_without: dict[str, int]
    features: dict[str, str]


class RankedItem(BaseModel):
    """One item of a ranking, best first. A score that is not finite is null, and sorts last."""

    id: Id
    score: float | None
    tasks: dict[str, float | None]
    explain: ItemExplanation | None = None


class ScoredItem(BaseModel):
    """One item with all task scores."""

    id: Id
    tasks: dict[str, float | None]


class RequestExplanation(BaseModel):
    """How contributions are computed, and where the request's features came from."""

    method: str
    features: dict[str, dict[str, str]]


class _Answer(BaseModel):
    request_id: str
    model: ModelVersion
    degraded: Degraded | None
    timing_ms: TimingMs


class RankResponse(_Answer):
    """The ranking, `format: rows`."""

    fusion: FusionUsed
    items: list[RankedItem]
    explain: RequestExplanation | None = None


class RankColumnsResponse(_Answer):
    """The ranking, `format: columns`: every list in the order of the ranking."""

    fusion: FusionUsed
    ids: list[Id]
    scores: list[float | None]
    tasks: dict[str, list[float | None]]
    explain: dict[str, JsonValue] | None = None


class ScoreResponse(_Answer):
    """All task scores, in the order of the request, `format: rows`."""

    items: list[ScoredItem]


class ScoreColumnsResponse(_Answer):
    """All task scores, in the order of the request, `format: columns`."""

    ids: list[Id]
    tasks: dict[str, list[float | None]]


class FieldProblem(BaseModel):
    """One field that is wrong."""

    loc: str
    msg: str


class Problem(BaseModel):
    """Every error, as RFC 9457 has it."""

    type: str = "about:blank"
    title: str
    status: int
    code: str
    detail: str
    errors: list[FieldProblem] = []
    request_id: str
