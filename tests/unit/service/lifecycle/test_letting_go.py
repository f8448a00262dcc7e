"""A version that has closed is let go; the memory of its item tensors too, if no other wants it."""

from __future__ import annotations

import asyncio
import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from service.lifecycle import memory
from service.lifecycle.memory import LettingGo
from service.scoring.tensor_memory import TensorMemory

SHAPE = (3, 2)


class Version:
    """Stands for a loaded version: it owns item tensors."""

    def __init__(self, tensors: TensorMemory) -> None:
        self.tensors = tensors.take(self, *SHAPE)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_LETTING_GO_S", 0.0)


@pytest.fixture
def given_back(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows with each time that memory goes back to the system."""
    times: list[str] = []
    monkeypatch.setattr(memory, "_trim", lambda: times.append("all"))
    return times


@pytest.mark.parametrize("wanted", [False, True])
def test_its_memory_stays_for_the_next_version_alone(
    wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_NEXT_VERSION_S", 0.3)
    tensors = TensorMemory()
    closed: list[Any] = [Version(tensors)]
    version, array = weakref.ref(closed[0]), weakref.ref(closed[0].tensors)

    async def let_go() -> Version | None:
        with ThreadPoolExecutor(1) as pool:
            going = asyncio.create_task(LettingGo(tensors, pool).let_go(closed))
            async with asyncio.timeout(10):
                while version() is not None:  # noqa: ASYNC110  # nothing tells when it goes
                    await asyncio.sleep(0.01)
            assert array() is not None
            following = Version(tensors) if wanted else None
            await going
            return following

    following = asyncio.run(let_go())
    gc.collect()
    if following is None:
        assert array() is None
    else:
        assert following.tensors is array()


def test_the_last_one_that_closes_gives_back_the_memory_of_all(
    given_back: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_NEXT_VERSION_S", 0.1)

    async def let_go() -> None:
        with ThreadPoolExecutor(1) as pool:
            letting_go = LettingGo(TensorMemory(), pool)
            await asyncio.gather(*(letting_go.let_go([]) for _ in range(3)))

    asyncio.run(let_go())
    assert given_back == ["all"]


def test_memory_comes_back_while_versions_go_on_closing(
    given_back: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_NEXT_VERSION_S", 0.05)
    monkeypatch.setattr(memory, "_LONGEST_KEPT_S", 0.1)

    async def let_go() -> None:
        with ThreadPoolExecutor(1) as pool:
            letting_go = LettingGo(TensorMemory(), pool)
            going = []
            for _ in range(12):
                going.append(asyncio.create_task(letting_go.let_go([])))
                await asyncio.sleep(0.03)
            assert given_back
            await asyncio.gather(*going)

    asyncio.run(let_go())
