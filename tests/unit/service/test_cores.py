"""Usable cores, of the affinity mask or the CPU quota; and threads that come second."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

from service.cores import NICENESS, lower_priority, share_interpreter, usable_cores


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def v2(path: str, **cpu_max: str) -> dict[str, str]:
    groups = {f"sys/fs/cgroup/{group}/cpu.max": text for group, text in cpu_max.items()}
    return {"proc/self/cgroup": f"0::{path}\n", **groups}


def v1(path: str, group: str, quota: int) -> dict[str, str]:
    directory = f"sys/fs/cgroup/cpu{group}"
    return {
        "proc/self/cgroup": f"9:name=systemd:/\n3:cpuset:/\n2:cpu,cpuacct:{path}\n0::/\n",
        f"{directory}/cpu.cfs_quota_us": f"{quota}\n",
        f"{directory}/cpu.cfs_period_us": "100000\n",
    }


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        (v2("/"), 8),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 8),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "300000 100000\n"}, 3),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "250000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "9000000 100000\n"}, 8),
        (v2("/pod/box", pod="200000 100000\n"), 2),
        (v2("/pod", pod="max 100000\n"), 8),
        (v1("/", "", 400_000), 4),
        (v1("/", "", -1), 8),
        (v1("/docker/abc", "", 200_000), 2),
        (v1("/pod/box", "/pod", 100_000), 1),
    ],
)
def test_the_least_of_affinity_and_quotas(
    files: dict[str, str], cores: int, tmp_path: Path
) -> None:
    assert usable_cores(write(tmp_path, files)) == cores


def test_affinity_of_this_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5})
    assert usable_cores(tmp_path) == 1


def test_a_thread_gives_way_beside_a_process_that_is_nice_already() -> None:
    found: list[int] = []

    def look() -> None:
        before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        for _ in range(3):  # not beyond what there is
            lower_priority()
        found.extend((before, os.getpriority(os.PRIO_PROCESS, threading.get_native_id())))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    before, after = found
    assert after == min(before + 3 * NICENESS, 19)
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


def test_no_thread_waits_long_for_the_interpreter() -> None:
    before = sys.getswitchinterval()
    try:
        share_interpreter()
        assert sys.getswitchinterval() == pytest.approx(0.0005)
    finally:
        sys.setswitchinterval(before)
