"""What may lie under a file's name without being one that can be read to its end."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

Make = Callable[[Path], object]


def _bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def _sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 20 << 30)


STRANGE: list[tuple[Make, str]] = [
    (os.mkfifo, "must be a plain file, is a named pipe"),
    (_bind, "must be a plain file, is a socket"),
    (Path.mkdir, "must be a plain file, is a directory"),
    (lambda path: path.symlink_to("/dev/zero"), "must be a plain file, is a device"),
    (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
    (_sparse, "has 21,474,836,480 bytes, at most 4,194,304 are read"),
]
"""How each is made, and what is said of it."""
