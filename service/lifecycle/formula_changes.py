"""Changes of formulas on request: checked against the versions served, written at once, noted.

The service follows the directory, so a change is a file that is replaced; what is checked here is
what the service would check, so that whoever asks is told at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bundle.manifest import Manifest
from service.fusion.directory import RULES, read_fusions
from service.fusion.errors import FusionError
from service.fusion.history import Entry, History, write_file
from service.lifecycle.formulas import Formulas, fit, note


@dataclass(frozen=True)
class Changed:
    """A change that was made.

    Attributes:
        before: the version that the file had; None if it was not there, or could not be used.
        after: the version that it has.
        remark: what is not as it was, empty if all is.
    """

    name: str
    before: str | None
    after: str
    remark: str = ""


def put(
    directory: Path, name: str, content: bytes, manifests: Sequence[Manifest], by: str
) -> Changed:
    """Write or replace the file of a fusion, or the rules.

    Args:
        manifests: of the versions that the formula must fit.
        by: who asks, for the history.

    Raises:
        FusionError: the content cannot be used, or what depends on it could not any more;
            OSError: it cannot be written.
    """
    directory.mkdir(exist_ok=True)
    versions = [(manifest, Formulas()) for manifest in manifests]
    now = fit(directory, versions)
    then = fit(directory, versions, {name: content})
    for each in (name, *then.refused):
        if each in then.refused and (each == name or each not in now.refused):
            raise FusionError(then.refused[each])
    note(directory, now.accepted)  # what is replaced is not lost, even if nobody served it
    after = then.accepted[name]
    write_file(directory / f"{name}.yaml", content)
    History(directory).record(name, after.version, after.sources, by)
    before = now.accepted.get(name)
    return Changed(name, before.version if before else None, after.version)


def rollback(
    directory: Path, name: str, version: str | None, manifests: Sequence[Manifest], by: str
) -> Changed:
    """Bring back what was live under a name.

    Args:
        version: the version to bring back, or how it begins; the one before the newest if None.
        manifests, by: as for `put`.

    Raises:
        FusionError: there is no such version, or it does not fit; OSError.
    """
    history = History(directory)
    entry = _earlier(history.entries(name), name, version)
    if name == RULES:
        return put(directory, name, history.content(entry, name), manifests, by)
    content, as_it_was = history.restored(entry, name, _current(directory))
    made = put(directory, name, content, manifests, by)
    if as_it_was:
        return made
    ancestors = ", ".join(each for each in entry.files if each != name)
    remark = f"it inherits nothing now: {ancestors} changed since, and it is what it was"
    return Changed(name, made.before, made.after, remark)


def _earlier(entries: Sequence[Entry], name: str, version: str | None) -> Entry:
    if version is None:
        earlier = [each for each in entries if each.version != entries[-1].version]
        if not earlier:
            raise FusionError(f"'{name}' has no earlier version")
        return earlier[-1]
    found = {each.version: each for each in entries if each.version.startswith(version)}
    if len(found) != 1:
        known = ", ".join(dict.fromkeys(each.version for each in entries)) or "none"
        wrong = "more than one version begins" if found else "no version begins"
        raise FusionError(f"'{name}': {wrong} with '{version}'; known: {known}")
    return next(iter(found.values()))


def _current(directory: Path) -> Mapping[str, bytes]:
    sources: dict[str, bytes] = {}
    for fusion in read_fusions(directory).usable.values():
        sources |= fusion.sources
    return sources
