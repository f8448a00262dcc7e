"""What a mapped table costs is told apart from the rest of a process."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from loadtest.memory import _of_process


def test_the_table_is_told_from_the_rest(tmp_path: Path) -> None:
    table = tmp_path / "embeddings.bin"
    table.write_bytes(b"x" * (8 << 20))
    before = _of_process(os.getpid())
    assert before["table_rss"] == 0
    assert 0 < before["pss"] <= before["rss"]
    with table.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert sum(mapped[::4096]) > 0
        found = _of_process(os.getpid())
    assert found["table_rss"] == found["table_pss"] == 8
