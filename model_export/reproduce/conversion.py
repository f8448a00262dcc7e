"""Hillstrom: ESMM's conversion against networks that are trained on conversions alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from model_export import config as config_file
from model_export import pipeline
from model_export.config import Config
from model_export.reproduce import budget, results
from model_export.reproduce.findings import compared, spread, today

EXAMPLE = Path("examples/hillstrom.yaml")
_WHOLE, _ONCE_THERE = "conversion", "conversion_once_there"

Aucs = dict[str, list[float]]


def run(path: Path, seeds: Sequence[int], cache: Path, out: Path, console: Console) -> None:
    """Train what the cache lacks; write conversion.md and conversion.json into `out`.

    Each seed is a split of its own, too: the test part has some hundred conversions only, and the
    split decides more than the initialisation.
    """
    aucs: Aucs = {}
    for done, seed in enumerate(seeds, start=1):
        base = _example(path, seed)
        esmm = results.trained(_named(base, "esmm"), pipeline.prepare(base), cache, console)
        for task in (_WHOLE, _ONCE_THERE):
            aucs.setdefault(f"esmm, {task}", []).append(_auc(esmm, task))
            alone = _alone(base, task, cache, console)
            aucs.setdefault(f"alone, {task}", []).append(_auc(alone, task))
        _write(aucs, done, out)
        console.print(f"conversion: {done} of {len(seeds)} seeds; {out / 'conversion.md'}")


def _example(path: Path, seed: int) -> Config:
    content = config_file.load(EXAMPLE).model_dump(mode="json")
    content["data"]["files"] = str(path)
    content["data"]["split"]["seed"] = seed
    return config_file.parse(content | {"seed": seed}, str(EXAMPLE))


def _alone(base: Config, task: str, cache: Path, console: Console) -> dict[str, Any]:
    """A network of the one task, with as many parameters as ESMM."""
    content = base.model_dump(mode="json")
    content["tasks"] = [one for one in content["tasks"] if one["name"] == task]
    common = base.architecture.model_dump(include={"embedding_width", "tower_layers", "dropout"})
    any_size = {"family": "shared_bottom", "bottom_layers": [8, 4], **common}
    content |= {"architecture": any_size, "fusion": None}
    config = config_file.parse(content, str(EXAMPLE))
    prepared = pipeline.prepare(config)
    schema = prepared.features.schema
    parameters = budget.counted(base.architecture, schema, [one.served() for one in base.tasks])
    tasks = [one.served() for one in config.tasks]
    options = budget.sized("shared_bottom", common, schema, tasks, parameters)
    config = config.model_copy(update={"architecture": options})
    return results.trained(_named(config, f"{task}-alone"), prepared, cache, console)


def _named(config: Config, name: str) -> Config:
    return config.model_copy(update={"name": f"hillstrom-{name}"})


def _auc(result: Mapping[str, Any], task: str) -> float:
    return float(result["test"][task]["auc"])


def _write(aucs: Aucs, seeds: int, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    content = {"date": today(), "seeds": seeds, "auc": aucs}
    (out / "conversion.json").write_text(json.dumps(content, indent=1))
    lines = [
        "# Hillstrom: ESMM against conversion alone",
        "",
        f"Made on {today()} by `make reproduce` from the 64,000 rows of Hillstrom's campaign "
        f"({EXAMPLE}), split 60/20/20, each of {seeds} seeds its own split and initialisation; "
        "networks of the same number of parameters within a tenth. Test AUC:",
        "",
        "| what is predicted | ESMM | a network of this task alone |",
        "|---|---|---|",
    ]
    for task, meaning in (
        (_WHOLE, "conversion, of all rows"),
        (_ONCE_THERE, "conversion, of those who visited"),
    ):
        esmm, alone = aucs[f"esmm, {task}"], aucs[f"alone, {task}"]
        lines.append(f"| {meaning} | {spread(esmm)} | {spread(alone)} |")
    lines += ["", "The paper has ESMM above a network trained on conversions alone:", ""]
    for task in (_WHOLE, _ONCE_THERE):
        word = compared(aucs[f"esmm, {task}"], aucs[f"alone, {task}"])
        lines.append(f"- {task}: {word}.")
    (out / "conversion.md").write_text("\n".join([*lines, ""]))
