"""What the rooms of the service hand each other. No behaviour, no imports from any room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from bundle.rows import Rows
from bundle.schema import Entity

Id = str | int
MAX_ID_LENGTH = 512
"""Longest id, characters: longer ones no request can name."""

Keys = npt.NDArray[np.int64] | list[str]
"""Ids as a feature store knows them: texts, or the numbers themselves where all are whole."""
OnFailure = Literal["defaults", "error"]
"""What to do without a row, since the feature store failed."""
KeptAs = Literal["float32", "float16"]
"""The type of the numbers of item tensors that are kept."""
Scores = npt.NDArray[np.float32]
"""Task scores, float32 [rows, tasks]."""


@dataclass(slots=True)
class UserSide:
    """The user side of requests, before encoding.

    Attributes:
        users, contexts: [U] packed rows that belong together.
    """

    users: Rows
    contexts: Rows

    def __len__(self) -> int:
        return len(self.users)

    @staticmethod
    def concatenate(parts: list[UserSide]) -> UserSide:
        """All rows of `parts`, one after the other."""
        if len(parts) == 1:
            return parts[0]
        return UserSide(
            np.concatenate([part.users for part in parts]),
            np.concatenate([part.contexts for part in parts]),
        )


@dataclass(slots=True)
class Candidates:
    """The item side of a request, before encoding.

    Attributes:
        rows: [N] packed item rows.
        content: uint64 [N], their content hashes; 0 for rows that are not to be cached.
    """

    rows: Rows
    content: npt.NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows: Any) -> Candidates:
        """The selected rows; `rows` is an index array or a slice."""
        return Candidates(self.rows[rows], self.content[rows])


@dataclass(frozen=True, slots=True)
class FusionChoice:
    """Which formula a request wants: by name with weights overridden, or a formula of its own.

    Without a name the rules choose, or it is `default`.
    """

    name: str | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    formula: str | None = None


@dataclass(slots=True)
class Query:
    """A parsed request.

    Attributes:
        user_key, item_keys: the ids as the feature store knows them: 196 and "196" are one.
        item_features: feature name -> one value (or None) a candidate.
        deadline: time.monotonic() seconds by which the answer must be ready.
    """

    request_id: str
    model: str | None
    version: int | None
    user_key: str | None
    user_features: Mapping[str, Any]
    context: Mapping[str, Any]
    item_ids: Sequence[Id]
    item_keys: Keys
    item_features: Mapping[str, Sequence[Any]]
    fusion: FusionChoice
    top_k: int | None
    explain: bool
    arrived: float
    deadline: float


@dataclass(slots=True)
class RowCounts:
    """How many rows of an entity were not what they should be.

    Attributes:
        missing: not in the store, so that defaults were used.
        stale: older than they may be.
        defaulted: at least one value is the schema's default.
    """

    missing: int = 0
    stale: int = 0
    defaulted: int = 0


@dataclass(slots=True)
class Degradation:
    """What of an answer is not as it should be; falsy when all is well."""

    features: dict[Entity, RowCounts] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.features or self.reasons)


@dataclass(slots=True)
class Timing:
    """Milliseconds that each part of a request took; `queue` is waiting, `score` is running."""

    features_ms: float = 0.0
    queue_ms: float = 0.0
    score_ms: float = 0.0
    fuse_ms: float = 0.0
    total_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why the items are where they are, and where their features came from.

    Attributes:
        method: how contributions are computed.
        baseline: float64 [N], the fused score with every task at the baseline.
        contributions: float64 [N, T]; each row adds up to fused score - baseline.
        ranks_without: int [N, T], 1-based rank of the item were the task at the baseline.
        user_sources, context_sources: feature -> inline, default, or the store's name.
        item_sources: feature -> [N] of the same.
    """

    method: str
    baseline: npt.NDArray[np.float64]
    contributions: npt.NDArray[np.float64]
    ranks_without: npt.NDArray[np.int64]
    user_sources: Mapping[str, str]
    context_sources: Mapping[str, str]
    item_sources: Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Scored:
    """All task scores of a request's candidates, in the order of the request."""

    request_id: str
    model: str
    version: int
    tasks: tuple[str, ...]
    item_ids: Sequence[Id]
    scores: Scores
    degraded: Degradation
    timing: Timing


@dataclass(frozen=True, slots=True)
class Ranked:
    """A ranking of a request's candidates.

    Attributes:
        fusion_rule: the rule that chose the fusion, if one did.
        order: int [K], positions in the request, best first.
        fused: float64 [N], in the order of the request.
    """

    scored: Scored
    fusion_name: str
    fusion_version: str
    fusion_weights: Mapping[str, float]
    fusion_rule: str | None
    order: npt.NDArray[np.intp]
    fused: npt.NDArray[np.float64]
    explanation: Explanation | None
