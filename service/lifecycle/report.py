"""What `/models` says: state, part and share of each version, and how far each worker has come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service.lifecycle.board import Report
from service.lifecycle.comparison import broken
from service.lifecycle.deployment import Roles
from service.lifecycle.registry import Model
from service.lifecycle.trial import of_all_workers
from service.lifecycle.version import LoadedVersion


def model_report(model: Model, reports: Sequence[Report], workers: int) -> dict[str, Any]:
    """One model, as this worker has it, and as the others say that they have it.

    Args:
        workers: how many reports there should be.
    """
    deployment = model.deployment
    parts = [
        {
            "worker": each.worker,
            "pid": each.pid,
            "stale": each.stale,
            **_without_trials(each, model),
        }
        for each in reports
        if model.name in each.models
    ]
    generation = deployment.generation if deployment else None
    return {
        "name": model.name,
        "deployment": None if deployment is None else _in_short(deployment.roles, generation),
        "problem": model.problem,
        "converged": len(parts) == workers
        and all(p["settled"] and not p["stale"] and p["generation"] == generation for p in parts),
        "workers": parts,
        "versions": [
            {
                "version": status.version,
                "state": status.state,
                "reason": status.reason,
                "labels": _labels(model, status.version),
                "traffic": _traffic(model, status.version),
                "leases": loaded.leases if (loaded := model.loaded.get(status.version)) else 0,
                "memory_bytes": loaded.memory_bytes if loaded else 0,
            }
            for status in sorted(model.statuses.values(), key=lambda each: -each.version)
        ],
        "tasks": list(model.live.manifest.task_names) if model.live else [],
        "fusions": model.live.formulas.versions() if model.live else {},
        "fusions_refused": dict(model.refused_fusions),
    }


def part(model: Model, settled: bool) -> dict[str, Any]:
    """What this worker serves of a model.

    Args:
        settled: it has done all that the deployment asks for.
    """
    return {
        "generation": model.deployment.generation if model.deployment else None,
        "stable": _version(model.live),
        "canary": _version(model.canary),
        "shadow": _version(model.shadow),
        "settled": settled,
        "trials": {role: trial.summary() for role, trial in model.trials.items()},
    }


def comparison_report(model: Model, reports: Sequence[Report]) -> dict[str, Any]:
    """What `/models/<name>/compare` says: each trial as all workers together see it."""
    trials = {
        role: of_all_workers(reports, model.name, role, trial.summary())
        for role, trial in model.trials.items()
    }
    canary = model.deployment.roles.canary if model.deployment else None
    seen = trials.get("canary")
    return {
        "model": model.name,
        "canary": seen,
        "shadow": trials.get("shadow"),
        "guard": canary.guard.model_dump() if canary else None,
        "broken": broken(canary.guard, seen) if canary and seen else [],
        "ended": model.ended_trial,
    }


def _without_trials(report: Report, model: Model) -> dict[str, Any]:
    return {name: v for name, v in report.models[model.name].items() if name != "trials"}


def _in_short(roles: Roles, generation: int | None) -> dict[str, Any]:
    canary, shadow = roles.canary, roles.shadow
    return {
        "generation": generation,
        "stable": roles.stable,
        "canary": canary and {"version": canary.version, "percent": canary.percent},
        "shadow": shadow and {"version": shadow.version, "sample": shadow.sample},
        "pinned": list(roles.pinned),
    }


def _labels(model: Model, version: int) -> list[str]:
    parts = {"stable": model.live, "canary": model.canary, "shadow": model.shadow}
    labels = [name for name, loaded in parts.items() if _version(loaded) == version]
    if model.deployment and version in model.deployment.roles.pinned:
        labels.append("pinned")
    return labels


def _traffic(model: Model, version: int) -> float:
    """The share of users that a version answers."""
    roles = model.deployment.roles if model.deployment else None
    share = roles.canary.percent / 100 if model.canary and roles and roles.canary else 0.0
    if version == _version(model.canary):
        return share
    return 1.0 - share if version == _version(model.live) else 0.0


def _version(loaded: LoadedVersion | None) -> int | None:
    return loaded.manifest.version if loaded else None
