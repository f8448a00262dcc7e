"""The deployment of a model: which versions are served, to whom, what was before, who changed it.

A `Deployment` is a value. `deploy`, `promote`, `rollback` and the others give the next one;
`deployment_file.py` reads and writes it. Without a file the newest version is served.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

_INTEGERS = 10**18  # below: what JSON readers, and ours, take for a number
Version = Annotated[int, Field(ge=1, lt=_INTEGERS, strict=True)]
_Count = Annotated[int, Field(ge=1, lt=_INTEGERS)]
Stable = Version | Literal["newest"]
Action = Literal["deploy", "canary", "shadow", "promote", "rollback", "pin", "limits"]
NEWEST: Literal["newest"] = "newest"

_HISTORY = 100


class DeploymentInvalid(Exception):
    """A deployment file that cannot be read, or a change that does not fit what is there."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class Guard(_Strict):
    """What a canary must keep to, on the requests that it was compared on with the stable version.

    Attributes:
        min_requests: compared before anything is decided.
        min_overlap: mean share of the stable version's top k that is in the canary's.
        min_kendall_tau: mean rank correlation of the fused scores, -1 to 1.
        max_psi: population stability index of any task's scores.
        max_latency_ratio: of the time that scoring the same request takes.
        max_error_rate: share of its requests that fail, above the stable version's.
    """

    min_requests: _Count = 200
    min_overlap: Annotated[float, Field(ge=0, le=1)] = 0.3
    min_kendall_tau: Annotated[float, Field(ge=-1, le=1)] = 0.2
    max_psi: Annotated[float, Field(gt=0)] = 1.0
    max_latency_ratio: Annotated[float, Field(gt=0)] = 2.0
    max_error_rate: Annotated[float, Field(ge=0, le=1)] = 0.01


class Canary(_Strict):
    """A version that answers a share of the users.

    Attributes:
        percent: of the users, chosen by a hash of their id: who has it once keeps it, and more
            percent only add users. Requests without a user id stay with the stable version.
        sample: share of all requests that both versions score, to be compared.
        promote_after: compared requests within the guard after which it becomes stable by itself;
            never, when None.
    """

    version: Version
    percent: Annotated[float, Field(gt=0, le=100)]
    sample: Annotated[float, Field(gt=0, le=1)] = 1.0
    promote_after: _Count | None = None
    guard: Guard = Guard()


class Shadow(_Strict):
    """A version that scores a share of the requests and answers none."""

    version: Version
    sample: Annotated[float, Field(gt=0, le=1)] = 1.0


class Limits(_Strict):
    """Limits of one model; each may only be narrower than the service's own."""

    max_candidates: _Count | None = None
    timeout_ms: Annotated[float, Field(gt=0)] | None = None


class Roles(_Strict):
    """Which version has which part; `pinned` ones are loaded for requests that name them."""

    stable: Stable = NEWEST
    canary: Canary | None = None
    shadow: Shadow | None = None
    pinned: tuple[Version, ...] = ()

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        others = [each.version for each in (self.canary, self.shadow) if each]
        if self.canary and self.stable == NEWEST:
            raise ValueError("a canary needs a stable version with a number, not newest")
        if self.stable in others or len(set(others)) < len(others):
            raise ValueError("stable, canary and shadow must be different versions")
        return self


class Entry(_Strict):
    """One change: what was done, when, by whom and why, and the roles before it."""

    generation: _Count
    at: str
    by: str
    action: Action
    reason: str
    before: Roles


class Deployment(_Strict):
    """The contents of `deployment.json`; `generation` grows by one with each change."""

    schema_version: Literal[1] = 1
    generation: Annotated[int, Field(ge=0, lt=_INTEGERS)] = 0
    roles: Roles = Roles()
    limits: Limits = Limits()
    history: tuple[Entry, ...] = ()

    def changed(
        self, roles: Roles, action: Action, by: str, reason: str, at: str, limits: Limits | None
    ) -> Deployment:
        """The next deployment, with this one's roles in its history."""
        generation = self.generation + 1
        entry = Entry(
            generation=generation, at=at, by=by, action=action, reason=reason, before=self.roles
        )
        return Deployment(
            generation=generation,
            roles=roles,
            limits=limits or self.limits,
            history=(*self.history, entry)[-_HISTORY:],
        )


def deploy(now: Roles, version: Stable, published: Sequence[int]) -> Roles:
    """`version` is stable at once; a canary ends, and a shadow of the same version."""
    if version != NEWEST:
        _check_published(version, published)
    shadow = None if now.shadow and now.shadow.version == version else now.shadow
    return Roles(stable=version, shadow=shadow, pinned=now.pinned)


def start_canary(now: Roles, canary: Canary, published: Sequence[int]) -> Roles:
    """`canary` answers its share; what was newest until now is stable by its number."""
    _check_published(canary.version, published)
    stable = _numbered(now.stable, [each for each in published if each != canary.version])
    if stable == canary.version:
        raise DeploymentInvalid(f"version {stable} is the stable one: it cannot be its own canary")
    shadow = None if now.shadow and now.shadow.version == canary.version else now.shadow
    return Roles(stable=stable, canary=canary, shadow=shadow, pinned=now.pinned)


def start_shadow(now: Roles, shadow: Shadow | None, published: Sequence[int]) -> Roles:
    """`shadow` scores along; None ends it."""
    if shadow is None:
        return now.model_copy(update={"shadow": None})
    _check_published(shadow.version, published)
    stable = _numbered(now.stable, [each for each in published if each != shadow.version])
    if shadow.version == stable or (now.canary and now.canary.version == shadow.version):
        raise DeploymentInvalid(f"version {shadow.version} answers requests: it cannot be a shadow")
    return Roles(stable=stable, canary=now.canary, shadow=shadow, pinned=now.pinned)


def promote(now: Roles) -> Roles:
    """The canary becomes stable."""
    if now.canary is None:
        raise DeploymentInvalid("there is no canary to promote; start one with `multirank deploy`")
    return Roles(stable=now.canary.version, shadow=now.shadow, pinned=now.pinned)


def pin(now: Roles, pinned: Sequence[int], published: Sequence[int]) -> Roles:
    """Exactly these versions stay loaded for requests that name them."""
    for version in pinned:
        _check_published(version, published)
    return now.model_copy(update={"pinned": tuple(sorted(set(pinned)))})


def rollback(now: Deployment, published: Sequence[int]) -> Roles:
    """A canary ends; without one, the stable version before this one is stable again."""
    roles = now.roles
    if roles.canary is not None:
        return Roles(stable=roles.stable, shadow=roles.shadow, pinned=roles.pinned)
    current = _numbered(roles.stable, published)
    before = [each for each in stables_before(now) if each != current and each in published]
    lower = [each for each in published if each < current]
    if not before and not lower:
        raise DeploymentInvalid(f"there is no version before {current} to roll back to")
    return deploy(roles, before[-1] if before else max(lower), published)


def in_words(deployment: Deployment) -> str:
    """One line for people."""
    roles = deployment.roles
    parts = [f"{deployment.generation}: stable {roles.stable}"]
    if roles.canary:
        parts.append(f"canary {roles.canary.version} for {roles.canary.percent:g} %")
    if roles.shadow:
        parts.append(f"shadow {roles.shadow.version}")
    if roles.pinned:
        parts.append(f"pinned {', '.join(map(str, roles.pinned))}")
    limits = deployment.limits.model_dump(exclude_none=True)
    parts += [f"{name} {value:g}" for name, value in limits.items()]
    return ", ".join(parts)


def stables_before(now: Deployment) -> list[Stable]:
    """The stable versions that were left for another, without those that were rolled back."""
    left: list[Stable] = []
    after = [*(entry.before.stable for entry in now.history[1:]), now.roles.stable]
    for entry, stable in zip(now.history, after, strict=False):
        if stable == entry.before.stable:
            continue
        if entry.action == "rollback" and stable in left:
            del left[len(left) - 1 - left[::-1].index(stable) :]
        else:
            left.append(entry.before.stable)
    return left


def _numbered(stable: Stable, published: Sequence[int]) -> int:
    if stable != NEWEST:
        return stable
    if not published:
        raise DeploymentInvalid("no version is published that could be stable")
    return max(published)


def _check_published(version: int, published: Sequence[int]) -> None:
    if version not in published:
        known = ", ".join(map(str, published)) or "none"
        raise DeploymentInvalid(f"version {version} is not published; published: {known}")
