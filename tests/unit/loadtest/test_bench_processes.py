"""What the benchmark starts: where it runs, what it uses, that it ends; the workload on disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loadtest import workload
from loadtest.pinned import cores, pinned
from loadtest.processes import cpu_seconds, family, resident_bytes

_SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]


def _ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_pinned_command_keeps_its_process_id_and_gets_its_variables() -> None:
    core = cores()[1]
    code = "import os; print(os.getpid(), os.sched_getaffinity(0), os.environ['GIVEN'])"
    with subprocess.Popen(
        pinned(core, [sys.executable, "-c", code], GIVEN=7), stdout=subprocess.PIPE, text=True
    ) as process:
        out, _ = process.communicate(timeout=30)

    assert out.split() == [str(process.pid), f"{{{core}}}", "7"]


def test_a_pinned_command_ends_with_its_parent() -> None:
    code = (
        "import subprocess, sys; from loadtest.pinned import pinned;"
        f"child = subprocess.Popen(pinned({cores()[0]}, {_SLEEP!r}), stdout=subprocess.PIPE);"
        "child.stdout.readline(); print(child.pid, flush=True); child.wait()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    give_up = time.monotonic() + 20
    while not _ended(child) and time.monotonic() < give_up:
        time.sleep(0.02)

    assert _ended(child)


def test_a_family_is_counted_together() -> None:
    with subprocess.Popen(_SLEEP, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert {os.getpid(), child.pid} <= set(family(os.getpid()))
        assert cpu_seconds(os.getpid()) >= time.process_time() // 1
        assert resident_bytes(os.getpid()) > resident_bytes(child.pid) > 1_000_000
        child.kill()


def test_the_workload_is_built_again_only_when_its_code_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "deep" / "feed200"
    monkeypatch.setattr(workload, "_BUILD", "import sys; open(sys.argv[1] + '/made', 'w')")

    found = workload.ready(directory)
    assert (directory / "made").exists()
    assert found.undivided == directory / "undivided.onnx"
    (directory / "mark").touch()
    workload.ready(directory)
    assert (directory / "mark").exists()
    monkeypatch.setattr(workload, "_digest", lambda: "other code")
    workload.ready(directory)
    assert not (directory / "mark").exists()
    assert (directory / "made").exists()


def test_a_failed_build_leaves_the_old_workload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mark").touch()
    monkeypatch.setattr(workload, "_BUILD", "raise SystemExit('no torch here')")

    with pytest.raises(workload.BuildFailed, match="no torch here"):
        workload.ready(tmp_path)
    assert (tmp_path / "mark").exists()
