"""Which versions are wanted: what the deployment files say, less what was refused.

Worked out afresh from the files and from what is loaded, so that a process that was killed in the
middle of a swap begins where the deployment file stands.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from bundle.store import versions
from service.lifecycle.deployment import NEWEST, Deployment, stables_before
from service.lifecycle.formulas import FUSIONS_DIR
from service.lifecycle.refusal import Refused
from service.lifecycle.registry import Model, Registry
from service.lifecycle.version import Fingerprint, VersionStatus, fingerprint

_AGAIN_S = 30.0
"""Until a version is judged again that was refused for rows which the store lacks."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The versions that a deployment gives a part; `stable` is None while there is none."""

    stable: int | None
    canary: int | None
    shadow: int | None
    pinned: tuple[int, ...]

    def in_order(self) -> list[int]:
        """What is loaded first comes first."""
        parts = (self.stable, self.canary, self.shadow, *self.pinned)
        return list(dict.fromkeys(each for each in parts if each is not None))


class Plan:
    """What is to be served of a directory of published models."""

    def __init__(self, directory: Path, registry: Registry) -> None:
        self._directory = directory
        self._registry = registry

    def wanted(self, model: Model) -> Wanted:
        """The versions that have a part; none before the model's deployment could be read."""
        if model.deployment is None:
            return Wanted(None, None, None, ())
        roles = model.deployment.roles
        ended = model.ended_canary == model.deployment.generation
        return Wanted(
            self._stable(model, model.deployment),
            roles.canary.version if roles.canary and not ended else None,
            roles.shadow.version if roles.shadow else None,
            roles.pinned,
        )

    def settled(self, model: Model) -> bool:
        """Whether all parts are given as the deployment says, as far as its versions allow."""
        wanted = self.wanted(model)
        return model.problem is None and not any(
            self._missing(model, each) for each in wanted.in_order()
        )

    def next_missing(self) -> tuple[Model, int] | None:
        """The version that is to be loaded next; the stable versions of all models come first."""
        wanted = [(model, self.wanted(model).in_order()) for model in self._registry.models]
        for place in range(max((len(each) for _, each in wanted), default=0)):
            for model, in_order in wanted:
                if place < len(in_order) and self._missing(model, in_order[place]):
                    return model, in_order[place]
        return None

    def files_of(self, model: str, version: int) -> Fingerprint:
        """Changes with a version's files."""
        return fingerprint(self._directory / model / str(version))

    def formulas_of(self, model: str) -> Fingerprint:
        """Changes with a model's formulas."""
        return fingerprint(self._directory / model / FUSIONS_DIR)

    def note(self, status: VersionStatus, refusal: Refused, formulas: Fingerprint) -> None:
        """Note what else than a version's own files it was refused for.

        Args:
            formulas: those that it was judged by.
        """
        status.formulas = formulas if refusal.for_formulas else None
        status.again = time.monotonic() + _AGAIN_S if refusal.for_features else None
        status.beside = self._loaded_now() if refusal.for_memory else None

    def _loaded_now(self) -> frozenset[tuple[str, int]]:
        return frozenset((m.name, v) for m in self._registry.models for v in m.loaded)

    def bytes_loaded(self) -> int:
        """Of all loaded versions of all models."""
        return sum(v.memory_bytes for m in self._registry.models for v in m.loaded.values())

    def refused(self, model: Model, version: int) -> str | None:
        """Why a version stays refused, whatever becomes of the others and the store; else None."""
        status = model.statuses.get(version)
        if status is None or not self._was_refused(model, version):
            return None
        if status.beside is not None or status.again is not None:
            return None
        return status.reason

    def _stable(self, model: Model, deployment: Deployment) -> int | None:
        stable = deployment.roles.stable
        if stable == NEWEST:
            return self._newest(model)
        if model.live is None and self._was_refused(model, stable):
            # as a running service would have kept it: the one before is better than none
            for before in reversed(stables_before(deployment)):
                if before != NEWEST and not self._was_refused(model, before):
                    return before
        return stable

    def _newest(self, model: Model) -> int | None:
        """The newest version that was not refused; never one older than the live one."""
        live = model.live.manifest.version if model.live else 0
        newer = [each for each in versions(self._directory, model.name) if each > live]
        for version in reversed(newer):
            if version in model.loaded or not self._was_refused(model, version):
                return version
        return live or None

    def _was_refused(self, model: Model, version: int) -> bool:
        """Whether it would be refused again: nothing that it was judged by has changed."""
        status = model.statuses.get(version)
        if status is None or status.state != "refused":
            return False
        if status.beside is not None and status.beside != self._loaded_now():
            return False
        if status.again is not None and time.monotonic() > status.again:
            return False
        if status.formulas is not None and status.formulas != self.formulas_of(model.name):
            return False
        return status.files == self.files_of(model.name, version)

    def _missing(self, model: Model, version: int) -> bool:
        return version not in model.loaded and not self._was_refused(model, version)
