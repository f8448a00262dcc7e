"""Which of several worker processes this is, and what they tell each other.

Workers share nothing but a run directory. A worker that is ready keeps a file there; /readyz wants
those of all. A worker that replaces a dead one leaves the dead one's file alone until it has looked
for itself: meanwhile it accepts nothing, and the others serve.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Worker:
    """One worker process.

    Attributes:
        index: 0 to count - 1; a worker that replaces another has its index.
        count: how many there are.
        run_dir: what they share; None for a process that is alone.
        replaces: whether the service is up already, so that this one must not answer unready.
    """

    index: int = 0
    count: int = 1
    run_dir: Path | None = None
    replaces: bool = False

    def announce(self, ready: bool) -> None:
        """Tell the others whether this one is ready."""
        if self.run_dir is None:
            return
        if ready:
            self._mark(self.run_dir, self.index).touch()
        else:
            self._mark(self.run_dir, self.index).unlink(missing_ok=True)

    def others_not_ready(self) -> list[int]:
        """Indexes of the other workers that are not known to be ready."""
        if self.run_dir is None:
            return []
        others = (index for index in range(self.count) if index != self.index)
        return [index for index in others if not self._mark(self.run_dir, index).exists()]

    @staticmethod
    def _mark(run_dir: Path, index: int) -> Path:
        return run_dir / f"ready-{index}"


ALONE = Worker()
