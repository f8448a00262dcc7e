"""The registry: which version answers a request, and who holds which.

`lease` is on the way of every request. Which versions there are is the follower's affair
(`follower.py`): it brings them in, gives them their parts, and takes the parts away again. A
version without a part closes when its last lease ends.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import xxhash

from service.errors import InferenceFailed, NoActiveModel, UnknownModel
from service.lifecycle.deployment import Deployment, Limits, Roles
from service.lifecycle.trial import Role, Trial
from service.lifecycle.version import LoadedVersion, Rival, State, VersionStatus
from service.metrics import Metrics
from service.scoring.runs import Ended

log = logging.getLogger(__name__)

_CLOSED_KEPT = 5
_DETAIL = 1000
"""Characters of a reason that are kept: what is wrong may be a name of any length."""
_HASHES = 1 << 64


@dataclass(slots=True, eq=False)
class Model:
    """One model: who answers, and what became of all versions.

    Attributes:
        live: the stable version.
        canary: answers users whose hash is below `canary_below`.
        shadow: answers nobody.
        deployment: the last one that could be read; None before that.
        problem: what is wrong with the deployment file or the model's directory now.
        trials: what is compared with the stable version.
        ended_trial: the last one that the judge has ended, with its reason.
        ended_canary: generation of the deployment whose canary the judge has ended.
        refused_fusions: name -> why what is live under it is not what its file says.
    """

    name: str
    live: LoadedVersion | None = None
    canary: LoadedVersion | None = None
    canary_below: int = 0
    shadow: LoadedVersion | None = None
    loaded: dict[int, LoadedVersion] = field(default_factory=dict)
    statuses: dict[int, VersionStatus] = field(default_factory=dict)
    deployment: Deployment | None = None
    problem: str | None = None
    trials: dict[Role, Trial] = field(default_factory=dict)
    ended_trial: dict[str, Any] | None = None
    ended_canary: int | None = None
    refused_fusions: Mapping[str, str] = field(default_factory=dict)


class Registry:
    """Hands out leases.

    Args:
        on_closed: called with a version that nobody holds any more.
    """

    def __init__(self, metrics: Metrics, on_closed: Callable[[LoadedVersion], None]) -> None:
        self._metrics = metrics
        self._on_closed = on_closed
        self._models: dict[str, Model] = {}

    @property
    def models(self) -> list[Model]:
        """All models seen, by name."""
        return [self._models[name] for name in sorted(self._models)]

    @property
    def ready(self) -> bool:
        """Whether some model has a live version."""
        return any(model.live for model in self._models.values())

    def model(self, name: str) -> Model:
        """The model of that name, new if it was not seen before."""
        return self._models.setdefault(name, Model(name))

    def forget(self, model: Model) -> None:
        """Forget a model of which nothing is loaded."""
        del self._models[model.name]
        self._metrics.forget(self._metrics.model_problems, model.name)
        for version, status in model.statuses.items():
            self._metrics.forget(self._metrics.version_state, model.name, version, status.state)

    def least_wait_s(self) -> float:
        """Seconds that a request must expect to wait, whichever model it asks; 0 without any."""
        live = [model.live.batcher.wait_s() for model in self._models.values() if model.live]
        return min(live, default=0.0)

    @contextmanager
    def lease(
        self, name: str | None, version: int | None, user: str | None = None
    ) -> Iterator[LoadedVersion]:
        """Hold one version for the length of a request.

        Args:
            name: the model; None when only one has a live version.
            version: a loaded version; None for the one whose turn it is.
            user: who is asked for; decides between the stable version and a canary.

        Raises:
            UnknownModel: no such model, or the version is not loaded, or `name` is needed.
            NoActiveModel: the model has no version that is ready.
        """
        held = self._pick(name, version, user)
        leases = self._metrics.leases.labels(held.manifest.model, held.manifest.version)
        held.leases += 1
        leases.set(held.leases)
        held.answered += 1
        try:
            yield held
        except InferenceFailed as failure:
            held.failed += 1
            held.ended += isinstance(failure.__cause__, Ended)
            raise
        finally:
            held.leases -= 1
            leases.set(held.leases)
            if held.retired:
                self._close_if_drained(held)

    def _pick(self, name: str | None, version: int | None, user: str | None) -> LoadedVersion:
        if name is None:
            name = self._the_one()
        model = self._models.get(name)
        if model is None:
            known = ", ".join(sorted(self._models)) or "none"
            raise UnknownModel(f"model: no model {name!r}; served: {known}")
        if version is not None:
            if version not in model.loaded:
                loaded = ", ".join(map(str, sorted(model.loaded))) or "none"
                raise UnknownModel(
                    f"version: {name} version {version} is not loaded; loaded: {loaded}"
                )
            return model.loaded[version]
        canary = model.canary
        if canary and user is not None and user_hash(name, user) < model.canary_below:
            return canary
        if model.live is None:
            raise NoActiveModel(f"{name}: no version is ready; see /models")
        return model.live

    def _the_one(self) -> str:
        """The model that is meant where none is named; one that has no live version is not."""
        served = sorted(name for name, model in self._models.items() if model.live)
        if len(served) > 1:
            raise UnknownModel(f"model: name one of {', '.join(served)}")
        if not served:
            seen = ", ".join(sorted(self._models))
            raise NoActiveModel(
                f"{seen}: no version is ready; see /models" if seen else "no model is published yet"
            )
        return served[0]

    def bring_in(self, model: Model, loaded: LoadedVersion) -> None:
        """A version is ready; `assign` gives it a part."""
        version = loaded.manifest.version
        model.loaded[version] = loaded
        self.enter(model, version, "ready")
        self._metrics.leases.labels(model.name, version).set(0)

    def assign(
        self,
        model: Model,
        stable: LoadedVersion | None,
        canary: LoadedVersion | None,
        shadow: LoadedVersion | None,
        deployment: Deployment,
    ) -> None:
        """Give the loaded versions their parts and limits, at once; who has no part drains."""
        roles = deployment.roles
        limits = deployment.limits if deployment.limits != Limits() else None
        if stable is not model.live and stable is not None:
            self._metrics.swaps.labels(model.name).inc()
            log.info("%s version %d is live", model.name, stable.manifest.version)
        percent = roles.canary.percent if roles.canary else 0.0
        model.canary_below = int(percent / 100 * _HASHES)
        model.live, model.canary, model.shadow = stable, canary, shadow
        self._compare(model, roles)
        for version, loaded in list(model.loaded.items()):
            loaded.limits = limits
            loaded.retired = version not in roles.pinned and loaded not in (stable, canary, shadow)
            state: State = "draining" if loaded.retired else "ready"
            if model.statuses[version].state != state:
                self.enter(model, version, state)
            if loaded.retired:
                self._close_if_drained(loaded)

    def _compare(self, model: Model, roles: Roles) -> None:
        """Let the requests of a stable version and of a canary or shadow be compared."""
        rivals: dict[LoadedVersion, list[Rival]] = {v: [] for v in model.loaded.values()}
        parts: tuple[tuple[Role, LoadedVersion | None, float], ...] = (
            ("canary", model.canary, roles.canary.sample if roles.canary else 0.0),
            ("shadow", model.shadow, roles.shadow.sample if roles.shadow else 0.0),
        )
        for role, new, sample in parts:
            trial = model.trials.get(role)
            if model.live is None or new is None:
                model.trials.pop(role, None)
                continue
            if trial is None or not trial.of(model.live, new):
                trial = model.trials[role] = Trial(model.live, new)
            for version, rival in trial.rivals(sample, role == "canary").items():
                rivals[version].append(rival)
        for version, found in rivals.items():
            version.rivals = tuple(found)

    def refuse(self, model: Model, version: int, reason: str, detail: str) -> None:
        """A version is not let in."""
        if len(detail) > _DETAIL:
            detail = f"{detail[:_DETAIL]} ..."
        self.enter(model, version, "refused", f"{reason}: {detail}")
        self._metrics.versions_refused.labels(model.name, reason).inc()
        kept = f"version {model.live.manifest.version} stays" if model.live else "none is live"
        log.error("%s version %d refused: %s: %s (%s)", model.name, version, reason, detail, kept)

    def enter(self, model: Model, version: int, state: State, reason: str | None = None) -> None:
        """A version is in another state."""
        status = model.statuses[version]
        gauge = self._metrics.version_state
        if status.state != "found":
            self._metrics.forget(gauge, model.name, version, status.state)
        gauge.labels(model.name, version, state).set(1)
        status.state, status.reason = state, reason

    def _close_if_drained(self, held: LoadedVersion) -> None:
        model = self._models[held.manifest.model]
        version = held.manifest.version
        if held.leases or model.loaded.get(version) is not held:
            return
        del model.loaded[version]
        self.enter(model, version, "closed")
        self._metrics.forget(self._metrics.leases, model.name, version)
        self._on_closed(held)
        closed = [v for v, status in model.statuses.items() if status.state == "closed"]
        for old in sorted(closed)[:-_CLOSED_KEPT]:
            del model.statuses[old]
            self._metrics.forget(self._metrics.version_state, model.name, old, "closed")


def user_hash(model: str, user: str) -> int:
    """64 bits of a user's id; of every model other ones, so that canaries have other users."""
    return xxhash.xxh3_64_intdigest(f"{model}\0{user}".encode())
