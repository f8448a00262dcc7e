"""A ring is heard by all others, by nobody else, and needs nobody to hear it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.lifecycle.bell import Bell
from service.worker import ALONE, Worker

Heard = dict[int, asyncio.Event]


@contextmanager
def workers(run_dir: Path, *indexes: int) -> Iterator[tuple[dict[int, Bell], Heard]]:
    """Of three workers, those that have started."""
    bells = {index: Bell(Worker(index, 3, run_dir)) for index in indexes}
    heard = {index: asyncio.Event() for index in indexes}
    for index, bell in bells.items():
        bell.listen(heard[index].set)
    try:
        yield bells, heard
    finally:
        for bell in bells.values():
            bell.close()


async def of(*heard: asyncio.Event) -> None:
    await asyncio.wait_for(asyncio.gather(*(each.wait() for each in heard)), 10)


def test_the_others_hear_it(tmp_path: Path) -> None:
    async def ring() -> None:
        with workers(tmp_path, 0, 1, 2) as (bells, heard):
            bells[1].ring()
            await of(heard[0], heard[2])
            assert not heard[1].is_set()
            heard[0].clear()
            bells[2].ring()
            await of(heard[0], heard[1])

    asyncio.run(ring())


def test_one_that_was_killed_is_not_waited_for_and_the_next_hears_again(tmp_path: Path) -> None:
    async def ring() -> None:
        with workers(tmp_path, 0, 1) as (bells, heard):
            bells[0].ring()
            await of(heard[1])
        with workers(tmp_path, 0) as (bells, _):
            bells[0].ring()  # the pipe of 1 is there, and nobody reads it; 2 never came
        with workers(tmp_path, 0, 1) as (bells, heard):
            bells[0].ring()
            await of(heard[1])

    asyncio.run(ring())


def test_more_rings_than_a_pipe_holds_are_one(tmp_path: Path) -> None:
    async def ring() -> None:
        with workers(tmp_path, 0, 1) as (bells, heard):
            for _ in range((1 << 16) + 10):
                bells[0].ring()
            await of(heard[1])
            heard[1].clear()
            await asyncio.sleep(0.05)
            assert not heard[1].is_set()

    asyncio.run(ring())


def test_one_that_is_alone_rings_at_nobody() -> None:
    async def ring() -> None:
        bell = Bell(ALONE)
        bell.listen(lambda: None)
        bell.ring()
        bell.close()

    asyncio.run(ring())
