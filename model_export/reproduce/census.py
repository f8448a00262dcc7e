"""Census-Income: every architecture of one size, both task groups of the MMoE paper."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console

from model_export import config as config_file
from model_export import pipeline
from model_export.config import Config
from model_export.data.census import CensusOptions
from model_export.models.families import AnyOptions
from model_export.pipeline import Prepared
from model_export.reproduce import budget, results
from model_export.reproduce.findings import compared, spread, today

EXAMPLE = Path("examples/census-income.yaml")
PARAMETERS = 45_000
LEVELS = {"income": 0.935, "never_married": 0.990}
"""Mean AUC that MMoE and PLE are to reach in group 1."""

_FIRST = {1: "income", 2: "education"}
_PAPER: Mapping[int, Mapping[str, tuple[float, float, float, float]]] = {
    1: {
        "single_task": (0.9337, 0.9398, 0.9933, 0.9922),
        "shared_bottom": (0.9295, 0.9361, 0.9915, 0.9921),
        "cross_stitch": (0.9361, 0.9406, 0.9917, 0.9922),
        "moe": (0.9319, 0.9387, 0.9928, 0.9923),
        "mmoe": (0.9359, 0.9410, 0.9926, 0.9927),
    },
    2: {
        "single_task": (0.8792, 0.8843, 0.9933, 0.9922),
        "shared_bottom": (0.8813, 0.8836, 0.9927, 0.9917),
        "cross_stitch": (0.8819, 0.8855, 0.9919, 0.9921),
        "moe": (0.8813, 0.8852, 0.9915, 0.9912),
        "mmoe": (0.8826, 0.8860, 0.9932, 0.9924),
    },
}
"""Ma et al., KDD 2018, tables 1 and 2: mean and best AUC of the first task over 400 trainings, mean
AUC of `never_married`, and that of the training with the best first task."""

Rows = dict[str, list[dict[str, Any]]]
"""Architecture -> the result of each seed."""


def run(path: Path, seeds: Sequence[int], cache: Path, out: Path, console: Console) -> None:
    """Train what the cache lacks; write census.md and census.json into `out`.

    Seed after seed, so that what an interruption leaves is a table of all networks.
    """
    groups = {number: _Group.prepared(number, path) for number in (1, 2)}
    for done, seed in enumerate(seeds, start=1):
        for group in groups.values():
            for name, options in group.options.items():
                changed = {
                    "name": f"census-{group.number}-{name}",
                    "architecture": options,
                    "seed": seed,
                }
                config = group.base.model_copy(update=changed)
                result = results.trained(config, group.data, cache, console)
                group.rows.setdefault(name, []).append(result)
        _write(groups, done, path, out)
        console.print(f"census: {done} of {len(seeds)} seeds; written: {out / 'census.md'}")


@dataclass
class _Group:
    """A task group of the paper: its data, the networks of one size, and what came of them."""

    number: int
    base: Config
    data: Prepared
    options: dict[str, AnyOptions]
    sizes: dict[str, int]
    rows: Rows

    @classmethod
    def prepared(cls, number: int, path: Path) -> _Group:
        base = _config(number, path)
        data = pipeline.prepare(base)
        schema, tasks = data.features.schema, [task.served() for task in base.tasks]
        kept = {"embedding_width", "tower_layers", "dropout"}
        common = base.architecture.model_dump(include=kept)
        options = {
            name: budget.sized(name, common, schema, tasks, PARAMETERS) for name in budget.TEMPLATES
        }
        sizes = {name: budget.counted(one, schema, tasks) for name, one in options.items()}
        return cls(number, base, data, options, sizes, {})


def _config(group: int, path: Path) -> Config:
    """The example, for a group: the other labels' columns come back as inputs."""
    base = config_file.load(EXAMPLE)
    content = base.model_dump(mode="json")
    if group == 2:
        education = next(f for f in content["features"] if f["name"] == "education")
        content["features"].remove(education)
        content["features"].append({**education, "name": "income", "min_count": 1})
        content["tasks"][0] |= {"name": "education"}
    content["data"] |= {"path": str(path), "group": group}
    assert isinstance(base.data, CensusOptions)
    return config_file.parse(content, str(EXAMPLE))


def _write(groups: Mapping[int, _Group], seeds: int, path: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    content = {
        "date": today(),
        "seeds": seeds,
        "parameters": {number: group.sizes for number, group in groups.items()},
        "results": {number: group.rows for number, group in groups.items()},
    }
    (out / "census.json").write_text(json.dumps(content, indent=1))
    (out / "census.md").write_text(_report(groups, seeds, path))


def _report(groups: Mapping[int, _Group], seeds: int, path: Path) -> str:
    lines = [
        "# Census-Income",
        "",
        f"Made on {today()} by `make reproduce` from `{path.name}`, split 60/20/20 at random; "
        f"{seeds} seeds. AUC on the test part; each training keeps the weights of its best "
        f"validation epoch. Every network has {PARAMETERS:,} parameters but for embeddings, within "
        "a tenth. ESMM is not in the table: its tasks are a click and what follows it. The paper "
        "trained on the other file of the archive, more than three times as many persons, "
        "tuned each method by thousands of trials and took 400 trainings, so its figures say where "
        "things should be, not what they must be.",
        "",
    ]
    for group, of in groups.items():
        first, rows = _FIRST[group], of.rows
        lines += [
            f"## Group {group}: {first} and never_married",
            "",
            f"| network | parameters | {first}, mean ± deviation | best | never_married, mean ± "
            f"deviation | best | paper: {first} mean | best | never_married mean |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for name, one in rows.items():
            paper = _PAPER[group].get(name)
            cells = [f"{value:.4f}" for value in paper[:3]] if paper else ["-"] * 3
            lines.append(
                f"| {name} | {of.sizes[name]:,} | {_cells(one, first)} | "
                f"{_cells(one, 'never_married')} | {' | '.join(cells)} |"
            )
        lines += ["", *_findings(group, rows), ""]
    return "\n".join(lines)


def _findings(group: int, rows: Rows) -> list[str]:
    """What the figures say about the paper's claims, in words that follow from them."""
    first = _FIRST[group]
    said = []
    if group == 1:
        for name in ("mmoe", "ple"):
            for task, level in LEVELS.items():
                reached = mean(_aucs(rows[name], task))
                word = "reached" if reached >= level else "NOT reached"
                said.append(f"- level {task} >= {level} by {name}: {word} ({reached:.4f}).")
    for task in (first, "never_married"):
        order = sorted(rows, key=lambda name: -mean(_aucs(rows[name], task)))
        said.append(f"- {task}, best mean first: {', '.join(order)}.")
    for better, worse in (("mmoe", "shared_bottom"), ("mmoe", "moe"), ("mmoe", "single_task")):
        word = compared(_aucs(rows[better], first), _aucs(rows[worse], first))
        said.append(f"- the paper has {better} above {worse} in {first}: {word}.")
    above = compared(_aucs(rows["ple"], first), _aucs(rows["mmoe"], first))
    said.append(f"- the PLE paper has ple above mmoe: {above}.")
    return said


def _cells(seeds: Sequence[Mapping[str, Any]], task: str) -> str:
    aucs = _aucs(seeds, task)
    return f"{spread(aucs)} | {max(aucs):.4f}"


def _aucs(seeds: Sequence[Mapping[str, Any]], task: str) -> list[float]:
    return [seed["test"][task]["auc"] for seed in seeds]
