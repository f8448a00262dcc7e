"""One worker loads at a time; one that ends, or takes too long, keeps nobody waiting."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from service.lifecycle import turn
from service.lifecycle.turn import Turn
from service.worker import ALONE, Worker

_HOLDER = """
import asyncio, sys
from pathlib import Path
from service.lifecycle.turn import Turn
from service.worker import Worker

async def hold():
    async with Turn(Worker(1, 2, Path(sys.argv[1]))).taken():
        print("taken", flush=True)
        await asyncio.sleep(600)

asyncio.run(hold())
"""


def turns(run_dir: Path, count: int) -> list[Turn]:
    return [Turn(Worker(index, count, run_dir)) for index in range(count)]


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn, "_LONGEST_WAIT_S", 60.0)


@pytest.mark.usefixtures("patient")
def test_they_follow_each_other(tmp_path: Path) -> None:
    loading: list[int] = []
    most = 0

    async def load(number: int, mine: Turn) -> None:
        nonlocal most
        async with mine.taken():
            loading.append(number)
            most = max(most, len(loading))
            await asyncio.sleep(0.02)
            loading.remove(number)

    async def all_load() -> None:
        await asyncio.gather(*(load(*each) for each in enumerate(turns(tmp_path, 4))))

    asyncio.run(all_load())
    assert most == 1


def test_one_that_loads_for_long_is_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn, "_LONGEST_WAIT_S", 0.05)

    async def side_by_side() -> None:
        first, second = turns(tmp_path, 2)
        async with first.taken(), second.taken():
            pass

    asyncio.run(asyncio.wait_for(side_by_side(), 30))


@pytest.mark.usefixtures("patient")
def test_one_that_is_killed_gives_its_turn_up(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _HOLDER, str(tmp_path)]

    async def take_over(holder: subprocess.Popen[str]) -> None:
        mine = Turn(Worker(0, 2, tmp_path)).taken()
        entering = asyncio.ensure_future(mine.__aenter__())
        await asyncio.sleep(0.1)
        assert not entering.done()
        os.kill(holder.pid, signal.SIGKILL)
        await asyncio.wait_for(entering, 30)
        await mine.__aexit__(None, None, None)

    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "taken\n"
            asyncio.run(take_over(holder))
        finally:
            holder.kill()


def test_one_that_is_alone_does_not_wait() -> None:
    async def twice() -> None:
        mine = Turn(ALONE)
        async with mine.taken(), mine.taken():
            pass

    asyncio.run(twice())
