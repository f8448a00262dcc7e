"""A virtual environment for each peer, made when it is not there or its requirements changed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_REQUIREMENTS = Path(__file__).parent / "requirements"
_STAMP = "made_from"
_INSTALL_S = 900.0


class Unavailable(Exception):
    """A peer that cannot be installed, started or trusted; the message is the reason."""


@dataclass(frozen=True)
class Environment:
    """A peer's environment, as its `bin/python` sees it.

    Attributes:
        version: of the product.
    """

    directory: Path
    version: str

    @property
    def python(self) -> str:
        """The interpreter; not resolved, or it would not be the environment's."""
        return str(self.directory.absolute() / "bin" / "python")

    @property
    def packages(self) -> Path:
        """Where its packages are."""
        return next(self.directory.absolute().glob("lib/python*/site-packages"))


def environment(name: str, product: str, root: Path) -> Environment:
    """The environment of requirements/`name`.txt in `root`.

    Args:
        product: the requirement that `version` is of.

    Raises:
        Unavailable: it cannot be made; what pip said last.
    """
    file, common = _REQUIREMENTS / f"{name}.txt", _REQUIREMENTS / "common.txt"
    wanted = f"{sys.version}\n{file.read_text()}{common.read_text()}"
    pinned = re.search(
        rf"^{re.escape(product)}(?:\[\w+\])?==(\S+)$", file.read_text(), re.MULTILINE
    )
    assert pinned is not None, f"{file}: {product} is not pinned"
    made = Environment(root / name, pinned.group(1))
    stamp = made.directory / _STAMP
    if stamp.exists() and stamp.read_text() == wanted:
        return made
    shutil.rmtree(made.directory, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(made.directory)])
    pip = [made.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "--only-binary", ":all:", "-r", str(file)])
    stamp.write_text(wanted)
    return made


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_INSTALL_S
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"not installed within {_INSTALL_S:.0f} s") from error
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise Unavailable(f"not installed: {said[-1] if said else done.returncode}")
