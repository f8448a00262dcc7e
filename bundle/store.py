"""The model directory: publish a bundle atomically, list versions, load one and verify it.

    <models>/<model>/<version>/manifest.json, user.onnx, item.onnx, joint.onnx, ...

A version appears by one rename of a complete, fsynced directory and never changes afterwards.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bundle.arrays import Golden, read_golden, read_vocabularies
from bundle.encoding import Encoder
from bundle.errors import (
    DigestMismatch,
    FileMissing,
    FileUnreadable,
    FileUnsafe,
    ManifestInvalid,
    VersionExists,
)
from bundle.manifest import (
    GOLDEN_FILE,
    MANIFEST_FILE,
    VOCABULARIES_FILE,
    FileDigest,
    Manifest,
    parse,
    serialise,
)
from bundle.stages import PLAIN_NAME
from bundle.vocabulary import Vocabularies

_MODEL = re.compile(PLAIN_NAME)
_VERSION = re.compile("[1-9][0-9]{0,17}")
_CHUNK_BYTES = 1 << 20
_MANIFEST_BYTES = 16 << 20
_READABLE = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH


@dataclass(frozen=True)
class Bundle:
    """A verified bundle on disk."""

    path: Path
    manifest: Manifest
    vocabularies: Vocabularies

    def encoder(self) -> Encoder:
        """The encoder of this version; raises ManifestInvalid when a vocabulary does not fit."""
        return Encoder(self.manifest.features, self.vocabularies)

    def golden(self) -> Golden:
        """The golden rows.

        Raises:
            ManifestInvalid: they are unreadable.
            ArrayInvalid: an array is not of the type and shape that `Golden` says.
        """
        return read_golden(self.path / GOLDEN_FILE, self.manifest)


def digest(path: Path) -> FileDigest:
    """Size and sha256 of a file."""
    hashed = hashlib.sha256()
    size = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            hashed.update(chunk)
            size += len(chunk)
    return FileDigest(bytes=size, sha256=hashed.hexdigest())


def versions(models: Path, model: str) -> list[int]:
    """Published versions of a model, ascending; empty when there is none."""
    directory = models / model
    if not directory.is_dir():
        return []
    names = [entry.name for entry in directory.iterdir()]
    return sorted(int(name) for name in names if _VERSION.fullmatch(name))


def model_names(models: Path) -> list[str]:
    """Models that have at least one published version that this process may see, by name.

    Directories with names that no manifest may have are somebody else's: `.snapshot`, say.
    """
    if not models.is_dir():
        return []
    found = []
    for entry in models.iterdir():
        with suppress(PermissionError):
            if _MODEL.fullmatch(entry.name) and versions(models, entry.name):
                found.append(entry.name)
    return sorted(found)


def publish(source: Path, models: Path, version: int | None = None) -> Path:
    """Copy a bundle into the model directory as a new version, atomically.

    Args:
        source: a complete bundle directory, as `multirank export` writes it.
        models: the model directory.
        version: the version to publish as; the newest plus one when None.

    Returns:
        The published directory, `<models>/<model>/<version>`.

    Raises:
        BundleError: the source does not verify.
        VersionExists: that version is there already.
    """
    bundle = load(source)
    model = bundle.manifest.model
    if version is None:
        version = max(versions(models, model), default=0) + 1
    target = models / model / str(version)
    if target.exists():
        raise VersionExists(f"{target}: published already; versions are never overwritten")
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".publishing-", dir=target.parent))
    try:
        staging.chmod(0o755)
        for name in bundle.manifest.files:
            shutil.copyfile(source / name, staging / name)
        manifest = bundle.manifest.model_copy(update={"version": version})
        (staging / MANIFEST_FILE).write_bytes(serialise(manifest))
        for path in (*staging.iterdir(), staging):
            _fsync(path)
        try:
            staging.rename(target)
        except OSError as error:
            raise VersionExists(f"{target}: published by someone else meanwhile") from error
        _fsync(target.parent)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return target


Digest = Callable[[Path], FileDigest]
"""Size and sha256 of a file, as `digest` gives them."""


def load(path: Path, digest: Digest = digest) -> Bundle:
    """Open a bundle directory and verify every file against the manifest.

    Args:
        digest: for those who remember what was read before.

    Raises:
        ManifestInvalid, SchemaVersionUnknown, FileMissing, FileUnsafe, FileUnreadable,
            DigestMismatch, ArrayInvalid.
    """
    try:
        _refuse_unless_readable(path.stat(), "the directory")
        manifest_path = _plain_file(path, MANIFEST_FILE)
        if (size := manifest_path.stat().st_size) > _MANIFEST_BYTES:
            raise ManifestInvalid(f"{MANIFEST_FILE}: {size:,} bytes, at most {_MANIFEST_BYTES:,}")
        manifest = parse(manifest_path.read_bytes())
        files = [(_plain_file(path, name), each) for name, each in manifest.files.items()]
        for file, expected in files:  # sizes first: they cost nothing
            if (size := file.stat().st_size) != expected.bytes:
                raise DigestMismatch(f"{file.name}: {size} bytes, expected {expected.bytes}")
        for file, expected in files:
            if digest(file) != expected:
                raise DigestMismatch(f"{file.name}: sha256 differs from the manifest's")
    except PermissionError as error:
        raise FileUnreadable(f"{error.filename}: {error.strerror}") from error
    except OSError as error:
        raise FileMissing(f"{path}: {error.strerror}: {error.filename}") from error
    vocabularies = read_vocabularies(path / VOCABULARIES_FILE, manifest.features)
    return Bundle(path=path, manifest=manifest, vocabularies=vocabularies)


def load_version(models: Path, model: str, version: int | None, digest: Digest = digest) -> Bundle:
    """Open a published version and verify every file, and that it is the one of its directory.

    Args:
        version: None for the newest.
        digest: as in `load`.

    Raises:
        BundleError: as `load`; FileUnsafe: the directory is a link; ManifestInvalid: another's;
            FileMissing: there is no version at all.
    """
    if version is None:
        published = versions(models, model)
        if not published:
            raise FileMissing(f"{models / model}: no published version")
        version = published[-1]
    directory = models / model / str(version)
    if directory.is_symlink():
        raise FileUnsafe(f"{version}: must be a plain directory, not a link")
    bundle = load(directory, digest)
    found = bundle.manifest
    if (found.model, found.version) != (model, version):
        raise ManifestInvalid(
            f"manifest says {found.model} {found.version}, the directory {model} {version}"
        )
    return bundle


def _plain_file(directory: Path, name: str) -> Path:
    path = directory / name
    try:
        found = path.lstat()
    except FileNotFoundError as error:
        raise FileMissing(f"{name}: not in {directory}") from error
    if not stat.S_ISREG(found.st_mode):
        raise FileUnsafe(f"{name}: must be a plain file, not a link or a directory")
    _refuse_unless_readable(found, name)
    return path


def _refuse_unless_readable(found: os.stat_result, name: str) -> None:
    if not found.st_mode & _READABLE:  # root would read it all the same, others would not
        raise FileUnreadable(f"{name}: nobody may read it: mode {stat.S_IMODE(found.st_mode):o}")


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
