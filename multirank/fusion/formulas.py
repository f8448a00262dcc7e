"""Which formula is meant: a file, a name, a name with an earlier version, or the text itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from multirank.fusion.errors import FusionCommandError
from service.fusion.compile import CompiledFusion, compile_fusion
from service.fusion.directory import read_fusions
from service.fusion.formula import Fusion, adhoc_fusion
from service.fusion.history import History


@dataclass(frozen=True)
class Fuse:
    """A compiled formula, and the weights that it is used with."""

    label: str
    compiled: CompiledFusion
    weights: Mapping[str, float]


def find(reference: str, directory: Path | None) -> Fusion:
    """The fusion that a person means.

    Args:
        reference: `path/to/file.yaml`; `name` or `name@version` of a model's fusions, where a
            version may be cut short; or `=` and a formula.
        directory: of the model's fusions, if there is a model.

    Raises:
        FusionCommandError: there is none; FusionError: it is wrong, at its place.
    """
    if reference.startswith("="):
        return adhoc_fusion(reference[1:])
    path = Path(reference)
    if path.suffix == ".yaml":
        if not path.is_file():
            raise FusionCommandError(f"{path}: no such file")
        return _named(path.stem, path.parent)
    if directory is None:
        raise FusionCommandError(f"{reference}: name a --model, or give a file, or =FORMULA")
    name, at, version = reference.partition("@")
    if not at:
        return _named(name, directory)
    history = History(directory)
    for entry in reversed(history.entries(name)):
        if version and entry.version.startswith(version):
            return history.fusion(entry, name)
    raise FusionCommandError(f"{directory}: '{name}' was never at a version {version}")


def compiled(
    reference: str,
    fusion: Fusion,
    tasks: tuple[str, ...],
    kinds: Mapping[str, str],
    overrides: Mapping[str, float],
) -> Fuse:
    """Compile a fusion, and bind those of the overrides that it has weights for.

    Raises:
        FusionError: it does not fit, or a weight is out of its bounds.
    """
    found = compile_fusion(fusion, tasks, kinds)
    mine = {name: value for name, value in overrides.items() if name in found.weights}
    label = reference if reference.startswith("=") else f"{fusion.name} {fusion.version}"
    return Fuse(label, found, found.bind_weights(mine))


def parse_weights(given: list[str] | None) -> dict[str, float]:
    """`like=0.5` and more of it.

    Raises:
        FusionCommandError: something else.
    """
    weights = {}
    for each in given or ():
        name, _, value = each.partition("=")
        try:
            weights[name] = float(value)
        except ValueError:
            raise FusionCommandError(f"--weight: expected NAME=NUMBER, not {each!r}") from None
    return weights


def _named(name: str, directory: Path) -> Fusion:
    read = read_fusions(directory) if directory.is_dir() else None
    if read is None or name not in {*read.usable, *read.mistakes}:
        known = ", ".join([*read.usable, *read.mistakes]) if read else ""
        raise FusionCommandError(f"{directory}: no fusion '{name}'; there is {known or 'none'}")
    if name in read.mistakes:
        raise read.mistakes[name]
    return read.usable[name]
