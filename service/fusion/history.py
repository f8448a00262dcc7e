"""History, beside the fuse stage: which version of a file was live since when, and its content.

    fusions/.history/<name>.jsonl      a line for each time that another version went live
    fusions/.history/<digest>.yaml     the content of a file, once, however often it was live

A line names the content of the file and of those that it inherits from, so that a version can be
had back as it was, whatever has become of its ancestors. Every file here appears by one rename.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from service.files import locked, read_plain
from service.fusion.directory import parse_fusions
from service.fusion.errors import FusionError
from service.fusion.formula import Fusion

_DIRECTORY = ".history"
_LOCK = "lock"
_FOUND = "file"
_JOURNAL_BYTES = 64 << 20


class Entry(BaseModel):
    """One line of a history.

    Attributes:
        at: since when the version is live, UTC, ISO 8601.
        version: as `Fusion.version`.
        by: who changed it: `file` for a change that was found in the directory.
        files: the digest of the content of its file and of those that it inherits from, by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: str
    version: str
    by: str
    files: dict[str, str]


class History:
    """The history of all files of one `fusions` directory.

    Several processes may use it at once.
    """

    def __init__(self, fusions: Path) -> None:
        self._fusions = fusions
        self._directory = fusions / _DIRECTORY

    def names(self) -> list[str]:
        """All files that something is known of; empty if there is no history."""
        return sorted(path.stem for path in self._directory.glob("*.jsonl"))

    def entries(self, name: str) -> list[Entry]:
        """What was live under a name, oldest first; empty if nothing is known of it.

        Raises:
            FusionError: the history has been damaged; OSError: it cannot be read.
        """
        journal = self._journal(name)
        try:
            lines = read_plain(journal, _JOURNAL_BYTES).splitlines()
        except FileNotFoundError:
            return []
        try:
            return [Entry.model_validate_json(line) for line in lines]
        except ValidationError as error:
            raise FusionError(f"{journal}: damaged: {error.errors()[0]['msg']}") from error

    def record(
        self, name: str, version: str, sources: Mapping[str, bytes], by: str = _FOUND
    ) -> bool:
        """Note that a version is live from now on, unless it is the newest one already.

        Args:
            sources: the content of its file and of those that it inherits from, by name.

        Returns:
            Whether there is a new entry.

        Raises:
            FusionError: the history has been damaged; OSError: it cannot be written.
        """
        entries = self.entries(name)
        if entries and entries[-1].version == version:
            return False
        self._directory.mkdir(exist_ok=True)
        with locked(self._directory / _LOCK):
            entries = self.entries(name)
            if entries and entries[-1].version == version:
                return False
            files = {each: self._keep(content) for each, content in sources.items()}
            now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
            entries.append(Entry(at=now, version=version, by=by, files=files))
            lines = "".join(f"{entry.model_dump_json()}\n" for entry in entries)
            write_file(self._journal(name), lines.encode())
        return True

    def content(self, entry: Entry, name: str) -> bytes:
        """The content of a file as it was.

        Raises:
            FusionError: the content is not what was kept; OSError: it cannot be read.
        """
        digest = entry.files[name]
        content = read_plain(self._directory / f"{digest}.yaml")
        if _digest(content) != digest:
            raise FusionError(f"{self._directory / digest}.yaml: changed since it was kept")
        return content

    def fusion(self, entry: Entry, name: str) -> Fusion:
        """A fusion as it was, with the ancestors that it had.

        Raises:
            FusionError: the content is not what was kept, or this release cannot read it;
                OSError: it cannot be read.
        """
        read = parse_fusions({each: self.content(entry, each) for each in entry.files})
        if name in read.mistakes:
            raise read.mistakes[name]
        return read.usable[name]

    def restored(self, entry: Entry, name: str, current: Mapping[str, bytes]) -> tuple[bytes, bool]:
        """The content to write, for `name` to be again what it was.

        Args:
            current: the content of all fusion files now, by name.

        Returns:
            The file as it was; or, if its ancestors have changed since, one that inherits nothing
            and says the same. Then whether it is the file as it was.

        Raises:
            FusionError, OSError: as `fusion`.
        """
        as_it_was = self.content(entry, name)
        found = parse_fusions({**current, name: as_it_was}).usable.get(name)
        if found is not None and found.version == entry.version:
            return as_it_was, True
        fusion = self.fusion(entry, name)
        fields = fusion.file.model_dump(exclude={"inherits"}, exclude_defaults=True)
        text = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=4096)
        return text.encode(), False

    def _journal(self, name: str) -> Path:
        return self._directory / f"{name}.jsonl"

    def _keep(self, content: bytes) -> str:
        digest = _digest(content)
        target = self._directory / f"{digest}.yaml"
        if not target.exists():
            write_file(target, content)
        return digest


def write_file(target: Path, content: bytes) -> None:
    """Write or replace a file at once: whoever looks finds the old content or the new one."""
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".", delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).chmod(0o644)
            Path(file.name).replace(target)
        except BaseException:
            Path(file.name).unlink()
            raise


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
