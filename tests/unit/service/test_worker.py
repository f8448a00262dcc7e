"""Workers tell each other that they are ready, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from service.worker import ALONE, Worker


def test_a_process_that_is_alone_waits_for_nobody() -> None:
    ALONE.announce(True)
    assert ALONE.others_not_ready() == []


def test_the_others_are_ready_when_they_say_so(tmp_path: Path) -> None:
    workers = [Worker(index, 3, tmp_path) for index in range(3)]
    assert workers[0].others_not_ready() == [1, 2]
    for worker in workers:
        worker.announce(True)
        worker.announce(True)
    assert [worker.others_not_ready() for worker in workers] == [[], [], []]
    workers[1].announce(False)
    workers[1].announce(False)
    assert [worker.others_not_ready() for worker in workers] == [[1], [], [1]]


def test_a_replacement_speaks_for_its_index(tmp_path: Path) -> None:
    first, second = (Worker(index, 2, tmp_path) for index in range(2))
    first.announce(True)
    replacement = replace(first, replaces=True)
    assert second.others_not_ready() == []
    replacement.announce(False)
    assert second.others_not_ready() == [0]
