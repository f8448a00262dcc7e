"""The formulas and rules of a model: which fit its versions, and why the others stay out.

A file goes live for all versions that requests can reach, or for none. One that is wrong, or that
does not fit, leaves what was live in its place, and does not harm its neighbours.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bundle.manifest import Manifest
from service.files import read_plain
from service.fusion.compile import CompiledFusion, compile_fusion
from service.fusion.directory import NO_CHANGES, RULES, read_fusions
from service.fusion.errors import FusionError
from service.fusion.formula import Fusion
from service.fusion.history import History
from service.fusion.rules import CompiledRules, Rules, compile_rules, parse_rules

log = logging.getLogger(__name__)

FUSIONS_DIR = "fusions"
_RULES_FILE = f"{RULES}.yaml"


@dataclass(frozen=True)
class Formulas:
    """What the requests of one version are fused with.

    Attributes:
        fusions: by name.
        rules: None where there are none.
    """

    fusions: Mapping[str, CompiledFusion] = field(default_factory=dict)
    rules: CompiledRules | None = None

    def versions(self) -> dict[str, str]:
        """The version of each fusion, and of the rules, by name."""
        found = {name: fusion.version for name, fusion in self.fusions.items()}
        return found if self.rules is None else found | {RULES: self.rules.version}


@dataclass(frozen=True)
class Fitted:
    """What a look at the files came to.

    Attributes:
        formulas: of each version, in the order in which they were given.
        accepted: name -> what its file says, and is live.
        refused: name -> why what its file says is not.
    """

    formulas: Sequence[Formulas]
    accepted: Mapping[str, Fusion | Rules] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)


def fit(
    directory: Path,
    versions: Sequence[tuple[Manifest, Formulas]],
    changed: Mapping[str, bytes] = NO_CHANGES,
) -> Fitted:
    """Fit the files of a directory to versions.

    Args:
        directory: of the fusions; a model that has none can still be asked for scores.
        versions: each with what it keeps where a file cannot be used.
        changed: contents, by name, that stand in for what the directory has.

    Raises:
        OSError: the directory cannot be read.
    """
    if not directory.is_dir():
        return Fitted([Formulas() for _ in versions])
    read = read_fusions(directory, changed)
    accepted: dict[str, Fusion | Rules] = {}
    refused = {name: str(mistake) for name, mistake in read.mistakes.items()}
    fusions: list[dict[str, CompiledFusion]] = [{} for _ in versions]
    for name, fusion in read.usable.items():
        try:
            compiled = [
                compile_fusion(fusion, manifest.task_names, manifest.features.kinds())
                for manifest, _ in versions
            ]
        except FusionError as mistake:
            refused[name] = str(mistake)
            continue
        accepted[name] = fusion
        for mine, one in zip(fusions, compiled, strict=True):
            mine[name] = one
    for mine, (_, before) in zip(fusions, versions, strict=True):
        mine |= {name: before.fusions[name] for name in refused if name in before.fusions}
    has_rules = RULES in changed or os.path.lexists(directory / _RULES_FILE)
    if not has_rules:
        return Fitted([Formulas(mine) for mine in fusions], accepted, refused)
    content = changed.get(RULES)
    rules = _fit_rules(directory, content, versions, fusions, accepted, refused)
    return Fitted(list(map(Formulas, fusions, rules)), accepted, refused)


def _fit_rules(
    directory: Path,
    changed: bytes | None,
    versions: Sequence[tuple[Manifest, Formulas]],
    fusions: Sequence[Mapping[str, CompiledFusion]],
    accepted: dict[str, Fusion | Rules],
    refused: dict[str, str],
) -> list[CompiledRules | None]:
    try:
        rules = parse_rules(_rules_file(directory) if changed is None else changed)
        compiled: list[CompiledRules | None] = [
            compile_rules(rules, mine, _context(manifest))
            for mine, (manifest, _) in zip(fusions, versions, strict=True)
        ]
    except FusionError as mistake:
        refused[RULES] = str(mistake)
        return [
            kept if (kept := before.rules) and kept.fusions <= mine.keys() else None
            for mine, (_, before) in zip(fusions, versions, strict=True)
        ]
    accepted[RULES] = rules
    return compiled


def _rules_file(directory: Path) -> bytes:
    try:
        return read_plain(directory / _RULES_FILE)
    except OSError as error:
        raise FusionError(f"{_RULES_FILE}: {error.strerror}") from error


def last_live(directory: Path, manifest: Manifest) -> Formulas:
    """What the history says was live last, as far as it fits a version."""
    history = History(directory)
    fusions: dict[str, CompiledFusion] = {}
    rules: CompiledRules | None = None
    names = sorted(history.names(), key=lambda name: name == RULES)  # they name the others
    for name in names:
        try:
            newest = history.entries(name)[-1]
            if name == RULES:
                content = history.content(newest, name)
                rules = compile_rules(parse_rules(content), fusions, _context(manifest))
            else:
                fusion = history.fusion(newest, name)
                kinds = manifest.features.kinds()
                fusions[name] = compile_fusion(fusion, manifest.task_names, kinds)
        except (FusionError, OSError) as error:
            log.info("%s: what was live last cannot be used: %s", directory / name, error)
    return Formulas(fusions, rules)


def note(directory: Path, accepted: Mapping[str, Fusion | Rules]) -> None:
    """Note in the history what is live. A directory that cannot be written has no history."""
    history = History(directory)
    for name, each in accepted.items():
        try:
            history.record(name, each.version, each.sources)
        except (FusionError, OSError) as error:
            log.warning("%s: the history is not kept: %s", directory, error)
            return


def _context(manifest: Manifest) -> dict[str, str]:
    return {feature.name: feature.kind for feature in manifest.features.of("context")}
