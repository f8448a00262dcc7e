"""The run directory: gone with its service, even a killed one, and with no other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from multirank.run_directory import run_directory

_HOLD = """
import sys
from pathlib import Path
from multirank.run_directory import run_directory
with run_directory(Path(sys.argv[1])) as directory:
    print(directory, flush=True)
    sys.stdin.read()
"""


def test_it_is_gone_at_the_end(tmp_path: Path) -> None:
    with run_directory(tmp_path) as directory:
        assert directory.parent == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_the_next_service_sweeps_what_a_killed_one_left(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        held = Path(holder.stdout.readline().strip())
        with run_directory(tmp_path):
            assert held.is_dir()  # its owner lives
        holder.kill()
    assert held.is_dir()
    with run_directory(tmp_path) as directory:
        assert list(tmp_path.iterdir()) == [directory]


def test_what_has_no_owner_yet_stays(tmp_path: Path) -> None:
    begun = tmp_path / "multirank-run-begun"
    begun.mkdir()
    with run_directory(tmp_path):
        assert begun.is_dir()
