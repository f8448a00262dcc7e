"""Small files that others put there, while we run: read without waiting, locked with an end.

Whatever lies under a name, a pipe that nobody writes to, a device, terabytes of nothing: whoever
reads it here is told, and goes on.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SMALL_BYTES = 4 << 20
_LOCK_S = 5.0
_LOOK_S = 0.02
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a directory",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_plain(path: Path, most_bytes: int | None = None) -> None:
    """See to it that a file can be read to its end; links are followed.

    Raises:
        OSError: it is not there, no plain file, or has more bytes; `strerror` says which.
    """
    found = path.stat()
    kind = stat.S_IFMT(found.st_mode)
    if kind != stat.S_IFREG:
        what = _KINDS.get(kind, "something else")
        raise OSError(errno.EINVAL, f"must be a plain file, is {what}", str(path))
    if most_bytes is not None and found.st_size > most_bytes:
        problem = f"has {found.st_size:,} bytes, at most {most_bytes:,} are read"
        raise OSError(errno.EFBIG, problem, str(path))


def read_plain(path: Path, most_bytes: int = SMALL_BYTES) -> bytes:
    """The content of a small file; raises as `check_plain`, and what reading raises."""
    check_plain(path, most_bytes)
    # should it be another file by now, a pipe is not waited for
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        return file.read(most_bytes)


@contextmanager
def locked(path: Path, mode: int = 0o666) -> Iterator[None]:
    """Hold the lock of a file, new if it is not there; the end of a process gives it up.

    Raises:
        TimeoutError: another process does not give it up; OSError: it cannot be opened.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
    try:
        gives_up = time.monotonic() + _LOCK_S
        while not try_lock(descriptor):
            if time.monotonic() > gives_up:
                problem = f"another process has held this lock for {_LOCK_S:g} s"
                raise TimeoutError(errno.ETIMEDOUT, problem, str(path))
            time.sleep(_LOOK_S)
        yield
    finally:
        os.close(descriptor)  # unlocks


def try_lock(descriptor: int) -> bool:
    """Take the lock of an open file, unless another process has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
