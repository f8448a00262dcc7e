"""A trial: a canary or a shadow beside the stable version, and what is known of how it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from service.lifecycle.board import Report
from service.lifecycle.comparison import Comparison, merged
from service.lifecycle.version import LoadedVersion, Rival

Role = Literal["canary", "shadow"]


class Trial:
    """Two loaded versions of one model that are compared.

    Attributes:
        comparison: on the requests that this worker answers.
    """

    def __init__(self, stable: LoadedVersion, new: LoadedVersion) -> None:
        names = [each.manifest.version for each in (stable, new)]
        shared = [t for t in stable.manifest.task_names if t in new.manifest.task_names]
        self.comparison = Comparison(names[0], names[1], shared)
        self._sides = {"stable": stable, "new": new}
        self._before = {side: (v.answered, v.failed, v.ended) for side, v in self._sides.items()}

    def of(self, stable: LoadedVersion, new: LoadedVersion) -> bool:
        """Whether these are the versions."""
        return self._sides["stable"] is stable and self._sides["new"] is new

    def rivals(self, sample: float, answers: bool) -> dict[LoadedVersion, Rival]:
        """For each version, the other one as its rival.

        Args:
            sample: share of the requests that are compared.
            answers: whether the new one answers requests, too.
        """
        stable, new = self._sides["stable"], self._sides["new"]
        found = {stable: Rival(new, True, sample, self.comparison)}
        if answers:
            found[new] = Rival(stable, False, sample, self.comparison)
        return found

    def summary(self) -> dict[str, Any]:
        """The comparison so far, and the requests that each has answered since it began."""
        answered = {}
        for side, version in self._sides.items():
            requests, failed, ended = self._before[side]
            answered[side] = {
                "requests": version.answered - requests,
                "failed": version.failed - failed,
                "ended": version.ended - ended,
            }
        return self.comparison.summary() | {"answered": answered}


def of_all_workers(
    reports: Sequence[Report], model: str, role: Role, own: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """A trial as all workers together see it; None where there is none.

    Args:
        own: this worker's summary; those of the same versions are added to it.
    """
    if own is None:
        return None
    told = [each.models.get(model, {}).get("trials", {}).get(role) for each in reports]
    versions = (own["stable"], own["new"])
    same = [each for each in told if each and (each["stable"], each["new"]) == versions]
    return merged(same or [own])
