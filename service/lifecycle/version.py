"""A model version on its way: what is known of it, and, once loaded, all that a request needs.

found -> verifying -> loading -> warming -> ready -> draining -> closed
               \\---------\\---------\\-> refused
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bundle.encoding import Encoder
from bundle.manifest import Manifest
from service.lifecycle.comparison import Comparison
from service.lifecycle.deployment import Limits
from service.lifecycle.formulas import Formulas
from service.scoring.batcher import Batcher
from service.scoring.stages import Model

State = Literal[
    "found", "verifying", "loading", "warming", "ready", "draining", "closed", "refused"
]
Fingerprint = frozenset[tuple[str, int, int]]


@dataclass(slots=True)
class VersionStatus:
    """What is known of a version.

    Attributes:
        reason: why it was refused.
        files: those that it was judged by; while they are the same, it is not judged again.
        formulas: the formulas, if it was refused for them.
        beside: what was loaded when there was no memory for it.
        again: when it is judged again, if it was refused for the store's rows; monotonic seconds.
    """

    version: int
    state: State = "found"
    reason: str | None = None
    files: Fingerprint = frozenset()
    formulas: Fingerprint | None = None
    beside: frozenset[tuple[str, int]] | None = None
    again: float | None = None


@dataclass(frozen=True, slots=True)
class Rival:
    """A version that scores a share of another's requests as well.

    Attributes:
        is_new: whether it is the one that is tried, not the stable one.
        sample: the share.
        comparison: where it is noted.
    """

    version: LoadedVersion
    is_new: bool
    sample: float
    comparison: Comparison


@dataclass(eq=False, slots=True, weakref_slot=True)
class LoadedVersion:
    """A version that was let in.

    Attributes:
        formulas: compiled for this version's tasks; replaced as a whole.
        memory_bytes: as `memory.estimate_bytes` has it.
        leases: requests that hold this version.
        retired: it has no part any more, and closes when nobody holds it.
        limits: its model's own, if it has any.
        rivals: those that its requests are compared with.
        answered, failed: requests it was leased for, and those of them that it failed on.
        ended: runs that had to be ended, in requests or in comparisons.
    """

    manifest: Manifest
    encoder: Encoder
    stages: Model
    batcher: Batcher
    formulas: Formulas
    memory_bytes: int = 0
    leases: int = 0
    retired: bool = False
    limits: Limits | None = None
    rivals: tuple[Rival, ...] = ()
    answered: int = 0
    failed: int = 0
    ended: int = 0


def fingerprint(directory: Path) -> Fingerprint:
    """Names, sizes and times of a directory's files but hidden ones: changes as they do."""
    if not directory.is_dir():
        return frozenset()
    try:
        files = [path for path in directory.iterdir() if path.name[0] != "."]
    except PermissionError:
        files = [directory]
    return frozenset(map(_look, files))


def _look(path: Path) -> tuple[str, int, int]:
    try:
        stat = path.stat()  # through links: a file that is linked in may change elsewhere
    except OSError:
        stat = path.lstat()  # a link that leads nowhere
    return path.name, stat.st_size, stat.st_mtime_ns
