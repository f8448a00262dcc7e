"""What differs between the log and a version: by task, by order, and in which requests most."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from multirank.fusion.comparing import kendall_tau
from multirank.replay.rescoring import Rescored
from service.decision_log.reading import Recorded
from service.fusion.compile import ranking
from service.lifecycle.comparison import overlap


@dataclass
class TaskDifference:
    """|logged - rescored| of one task over all candidates that both have a score for.

    Attributes:
        only_one: candidates that have a finite score in the log or now, but not in both.
    """

    largest: float = 0.0
    total: float = 0.0
    compared: int = 0
    only_one: int = 0

    @property
    def mean(self) -> float:
        """Mean absolute difference; 0 when nothing was compared."""
        return self.total / self.compared if self.compared else 0.0


@dataclass(frozen=True)
class Change:
    """One request.

    Attributes:
        largest: its largest absolute difference of a task score; task: of which.
        kendall_tau, overlap: of the orders; None when it was not fused, then or now.
    """

    request_id: str
    version: int
    largest: float
    task: str | None
    kendall_tau: float | None
    overlap: float | None


@dataclass
class Report:
    """The differences of all requests.

    Attributes:
        top_k: how many items count for the overlap.
        changes: all requests.
        other_formula: requests whose formula is gone, fused with today's of that name.
        absent: features that the log does not have, and in how many requests.
        missing_tasks: tasks that only the log or only the version has.
    """

    top_k: int
    tasks: dict[str, TaskDifference] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    other_formula: int = 0
    absent: Counter[str] = field(default_factory=Counter)
    missing_tasks: Counter[str] = field(default_factory=Counter)

    def add(self, recorded: Recorded, rescored: Rescored, tasks: tuple[str, ...]) -> None:
        """Compare one request; `tasks` are the version's."""
        self.other_formula += rescored.other_formula
        self.absent.update(rescored.absent)
        self.missing_tasks.update(set(recorded.tasks) ^ set(tasks))
        largest, worst = 0.0, None
        for position, task in enumerate(tasks):
            if task not in recorded.tasks:
                continue
            found = rescored.scores[:, position].astype(np.float64)
            logged = recorded.scores[:, recorded.tasks.index(task)].astype(np.float64)
            both = np.isfinite(found) & np.isfinite(logged)
            differences = np.abs(found - logged)[both]
            of_task = self.tasks.setdefault(task, TaskDifference())
            of_task.only_one += int((np.isfinite(found) != np.isfinite(logged)).sum())
            of_task.compared += len(differences)
            of_task.total += float(differences.sum())
            if len(differences):
                of_task.largest = max(of_task.largest, float(differences.max()))
                if worst is None or differences.max() > largest:
                    largest, worst = float(differences.max()), task
        tau = overlapping = None
        if recorded.fused is not None and rescored.fused is not None:
            before, _ = ranking(recorded.fused)
            after, _ = ranking(rescored.fused)
            tau = kendall_tau(np.argsort(before), np.argsort(after))
            overlapping = overlap(before.tolist(), after.tolist(), self.top_k)
        self.changes.append(
            Change(recorded.request_id, recorded.version, largest, worst, tau, overlapping)
        )

    @property
    def ordered(self) -> list[Change]:
        """The requests whose orders were compared."""
        return [change for change in self.changes if change.kendall_tau is not None]

    def most_changed(self, count: int) -> list[Change]:
        """The requests that changed most: in order, then in scores."""

        def agreement(change: Change) -> tuple[float, float]:
            return (1.0 if change.kendall_tau is None else change.kendall_tau, -change.largest)

        return sorted(self.changes, key=agreement)[:count]
