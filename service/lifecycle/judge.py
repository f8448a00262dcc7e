"""The judge of canaries: one that breaks its guard is rolled back, one that keeps to it promoted.

Every worker judges, on what all workers have seen; the generation of the deployment file sees to it
that only one of them acts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from service.lifecycle.board import Board
from service.lifecycle.comparison import broken
from service.lifecycle.deployment import (
    Action,
    Deployment,
    DeploymentInvalid,
    Roles,
    promote,
    rollback,
)
from service.lifecycle.deployment_file import ChangedMeanwhile, change
from service.lifecycle.registry import Model
from service.lifecycle.trial import of_all_workers
from service.metrics import Metrics

log = logging.getLogger(__name__)

Changing = Callable[[Deployment, Sequence[int]], Roles]


class Judge:
    """Looks at canaries, and acts on the deployment file."""

    def __init__(self, models: Path, board: Board, metrics: Metrics) -> None:
        self._models = models
        self._board = board
        self._metrics = metrics

    async def look(self, model: Model) -> None:
        """Roll the canary of a model back, or promote it, if it is time."""
        for each in model.trials.values():
            self._measure(model.name, each.summary())
        deployment, trial = model.deployment, model.trials.get("canary")
        if deployment is None or trial is None or deployment.roles.canary is None:
            return
        canary = deployment.roles.canary
        seen = of_all_workers(self._board.reports(), model.name, "canary", trial.summary())
        if seen is None:
            return
        if wrong := broken(canary.guard, seen):
            model.ended_canary = deployment.generation  # whatever becomes of the file
            reason = f"version {canary.version}: {'; '.join(wrong)}"
            await self._act(model, deployment, "rollback", rollback, reason, seen)
        elif canary.promote_after is not None and seen["compared"] >= canary.promote_after:
            kept = f"version {canary.version} kept to its guard on {seen['compared']} requests"
            await self._act(model, deployment, "promote", _promote, kept, seen)

    def _measure(self, model: str, seen: Mapping[str, Any]) -> None:
        for task, index in seen["psi"].items():
            self._metrics.compared_psi.labels(model, task).set(index)
        if seen["latency_ratio"] is not None:
            self._metrics.compared_latency.labels(model).set(seen["latency_ratio"])

    async def _act(
        self,
        model: Model,
        deployment: Deployment,
        action: Action,
        to: Changing,
        reason: str,
        seen: Mapping[str, Any],
    ) -> None:
        model.ended_trial = dict(seen) | {"ended": action, "reason": reason}
        try:
            await asyncio.to_thread(
                change,
                self._models,
                model.name,
                action,
                to,
                by="the guard of the canary",
                reason=reason,
                generation=deployment.generation,
            )
        except ChangedMeanwhile:  # another worker, or an operator, was first
            return
        except (DeploymentInvalid, OSError) as error:
            self._metrics.canary_decisions.labels(model.name, f"{action}_unwritten").inc()
            log.warning("%s: %s of the canary cannot be written: %s", model.name, action, error)
            return
        self._metrics.canary_decisions.labels(model.name, action).inc()
        log.warning("%s: %s by the guard of the canary: %s", model.name, action, reason)


def _promote(now: Deployment, published: Sequence[int]) -> Roles:
    return promote(now.roles)
