"""The wire of operators: which versions are served where, and how they compare, as pydantic models.

The OpenAPI page is made from these. Known to `app.py` alone; the rooms take plain values.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class VersionStatus(BaseModel):
    """A version's state; `reason` says why it was refused."""

    version: int
    state: Literal[
        "found", "verifying", "loading", "warming", "ready", "draining", "closed", "refused"
    ]
    reason: str | None
    labels: list[str]
    traffic: float
    leases: int
    memory_bytes: int


class DeploymentRoles(BaseModel):
    """What the deployment file says; generation 0: there is none, the newest version is stable."""

    generation: int
    stable: int | Literal["newest"]
    canary: dict[str, float] | None
    shadow: dict[str, float] | None
    pinned: list[int]


class WorkerStatus(BaseModel):
    """What one worker process serves; `stale`: it has not said so for a while."""

    worker: int
    pid: int
    stale: bool
    generation: int | None
    stable: int | None
    canary: int | None
    shadow: int | None
    settled: bool


class ModelStatus(BaseModel):
    """A model with its versions, newest first, and what the live one can be asked for.

    `fusions_refused` says why what is live under a name is not what its file says.
    `problem` says what is wrong with the deployment file or the directory; `converged`, that every
    worker serves what the file says.
    """

    name: str
    deployment: DeploymentRoles | None
    problem: str | None
    converged: bool
    workers: list[WorkerStatus]
    versions: list[VersionStatus]
    tasks: list[str]
    fusions: dict[str, str]
    fusions_refused: dict[str, str]


class ModelsResponse(BaseModel):
    """All models."""

    models: list[ModelStatus]


class Answered(BaseModel):
    """Requests that a version was asked to answer since the trial began, and failed on; and runs
    that took so long that they were ended."""

    requests: int
    failed: int
    ended: int


class Compared(BaseModel):
    """A new version beside the stable one, on the same requests; null is not known yet.

    `psi` is the population stability index of each task's scores, `score_ms` the processor time of
    scoring a request without caches, `latency_ratio` the median of the new one's over stable's.
    """

    stable: int
    new: int
    compared: int
    failed: int
    shed: int
    top_k_overlap: float | None
    kendall_tau: float | None
    psi: dict[str, float | None]
    latency_ratio: float | None
    score_ms: dict[str, float | None]
    answered: dict[str, Answered]


class Ended(Compared):
    """A canary that its guard has ended."""

    ended: Literal["rollback", "promote"]
    reason: str


class Comparisons(BaseModel):
    """What is compared with the stable version now, and the last canary that was ended."""

    model: str
    canary: Compared | None
    shadow: Compared | None
    guard: dict[str, float] | None
    broken: list[str]
    ended: Ended | None
