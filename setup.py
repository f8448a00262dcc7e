"""What pyproject.toml cannot say: the loops in C are compiled by zig, which comes as a wheel.

No compiler and no header of Python's is needed: they are called through ctypes.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

_OPTIONS = ("-mcpu=baseline", "-O3", "-fno-sanitize=all", "-shared", "-fPIC", "-s")
_SOURCES = [f"service/native/{each}.c" for each in ("layers", "memory", "processor")]
_HEADERS = [f"service/native/{each}.h" for each in ("mixtures", "native", "products")]


class BuildWithZig(build_ext):
    """Compile each extension as a plain shared library."""

    def build_extension(self, ext: Extension) -> None:
        """Compile one; a failure ends the installation with what the compiler said."""
        library = Path(self.get_ext_fullpath(ext.name)).absolute()
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            cache = {f"ZIG_{scope}_CACHE_DIR": scratch for scope in ("GLOBAL", "LOCAL")}
            subprocess.run(
                [sys.executable, "-m", "ziglang", "cc", *_OPTIONS, *ext.sources, "-o", library],
                env={**os.environ, **cache},
                check=True,
            )


setup(
    cmdclass={"build_ext": BuildWithZig},
    ext_modules=[Extension("service.native._loops", _SOURCES, depends=_HEADERS)],
)
