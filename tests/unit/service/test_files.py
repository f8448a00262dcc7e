"""Files that are none: whoever reads them is told at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from service import files
from service.files import locked, read_plain
from tests.strange_files import STRANGE, Make

NO_FILES: list[tuple[Make, str]] = [*STRANGE, (lambda path: None, "No such file")]


@pytest.mark.parametrize(("make", "says"), NO_FILES)
def test_what_is_no_small_file_is_named(
    tmp_path: Path, make: Callable[[Path], object], says: str
) -> None:
    make(tmp_path / "it")
    with pytest.raises(OSError, match=says) as caught:
        read_plain(tmp_path / "it")
    assert caught.value.filename == str(tmp_path / "it")


def test_a_small_file_is_read_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "content").write_bytes(b"all of it")
    (tmp_path / "it").symlink_to("content")
    assert read_plain(tmp_path / "it") == b"all of it"


def test_a_lock_that_is_never_given_up_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_LOCK_S", 0.1)
    with (
        locked(tmp_path / "lock"),
        pytest.raises(TimeoutError, match="another process has held this lock"),
        locked(tmp_path / "lock"),
    ):
        pass
    with locked(tmp_path / "lock"):
        pass
