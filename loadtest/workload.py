"""The reference workload on disk: built once for each state of the code that makes it."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

MODEL = "feed200"
_STAMP = "built_from"
_SOURCES = ("bundle", "model_export", "loadtest/feed200.py")
# a process of its own: torch would stay in this one, with its threads
_BUILD = """
import sys
from pathlib import Path
from loadtest.feed200 import build
build(Path(sys.argv[1]))
"""


class BuildFailed(Exception):
    """The workload could not be built; the message has the end of what it printed."""


@dataclass(frozen=True)
class Workload:
    """Where the workload lies: the models directory, and the undivided graph."""

    models: Path
    undivided: Path

    @property
    def bundle(self) -> Path:
        """The one published version."""
        return self.models / MODEL / "1"


def ready(directory: Path) -> Workload:
    """The workload in `directory`, built anew when the code that makes it has changed.

    Raises:
        BuildFailed: see there.
    """
    workload = Workload(directory / "models", directory / "undivided.onnx")
    stamp, sources = directory / _STAMP, _digest()
    if stamp.exists() and stamp.read_text() == sources:
        return workload
    fresh = directory.with_name(f"{directory.name}.building")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    built = subprocess.run(
        [sys.executable, "-c", _BUILD, str(fresh)], capture_output=True, text=True, check=False
    )
    if built.returncode != 0:
        raise BuildFailed("\n".join(built.stderr.splitlines()[-20:]))
    (fresh / _STAMP).write_text(sources)
    shutil.rmtree(directory, ignore_errors=True)
    fresh.rename(directory)
    return workload


def _digest() -> str:
    root = Path(__file__).resolve().parents[1]
    hashed = hashlib.sha256()
    for source in _SOURCES:
        for path in (root / source, *sorted((root / source).rglob("*.py"))):
            if path.is_file():
                hashed.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return hashed.hexdigest()
