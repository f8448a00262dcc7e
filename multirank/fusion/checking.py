"""Fusion files and rules against the tasks and features of one version, without serving them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from bundle.manifest import Manifest
from multirank.fusion.errors import FusionCommandError
from service.fusion.compile import CompiledFusion
from service.fusion.directory import RULES
from service.lifecycle.formulas import Formulas, fit


def check_directory(
    directory: Path, names: Collection[str] | None, manifest: Manifest
) -> Iterator[tuple[str, bool]]:
    """Check the files of a directory; others of it may be inherited from, and named by rules.

    Args:
        names: of the files to be checked; None for all.

    Returns:
        A line for each file, and whether it tells of a mistake.

    Raises:
        FusionCommandError: there is nothing to check.
    """
    fitted = fit(directory, [(manifest, Formulas())])
    (formulas,) = fitted.formulas
    found = {*fitted.refused, *formulas.versions()}
    if missing := set(names or ()) - found:
        raise FusionCommandError(f"{directory}: no such file: {', '.join(sorted(missing))}.yaml")
    if not found:
        raise FusionCommandError(f"{directory}: no fusion files")
    for name in sorted(names or found):
        if name in fitted.refused:
            yield fitted.refused[name], True
        elif name == RULES:
            yield f"{name}.yaml: ok, {formulas.versions()[name]}", False
        else:
            yield f"{name}.yaml: ok, {_described(formulas.fusions[name])}", False


def _described(fusion: CompiledFusion) -> str:
    weights = [
        f"{name} {weight.default:g} ({weight.minimum:g} .. {weight.maximum:g})"
        for name, weight in fusion.weights.items()
    ]
    parts = {"tasks": fusion.tasks_used, "features": fusion.features_used, "weights": weights}
    said = [f"{what} {', '.join(each)}" for what, each in parts.items() if each]
    return "; ".join([fusion.version, *said])
