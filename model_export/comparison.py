"""Comparison of experiments on the same held-out data, over one or several seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from model_export import config as config_file
from model_export import pipeline, report
from model_export.config import Config
from model_export.errors import ConfigInvalid
from model_export.training import run_directory
from model_export.training.evaluation import Metrics


def compare(
    files: Sequence[Path], seeds: Sequence[int], runs: Path, console: Console
) -> dict[str, list[Metrics]]:
    """Train each configuration with each seed, unless its run is there, and print a table.

    Args:
        files: configurations; they must name the same data and tasks.
        seeds: training seeds; each configuration's own when empty.
        runs: where run directories are.
        console: where progress and the table go.

    Returns:
        Experiment -> held-out metrics, one entry a seed.

    Raises:
        ConfigInvalid: the configurations differ in data or tasks, or share a name.
    """
    configs = [config_file.load(file) for file in files]
    _check_comparable(configs, files)
    found: dict[str, list[Metrics]] = {}
    for config in configs:
        seeded = [config.model_copy(update={"seed": seed}) for seed in seeds] or [config]
        found[config.name] = [_held_out(one, config, runs, console) for one in seeded]
    console.print(report.comparison(found))
    return found


def _held_out(seeded: Config, original: Config, runs: Path, console: Console) -> Metrics:
    suffix = "" if seeded.seed == original.seed else f"-seed-{seeded.seed}"
    directory = runs / f"{original.name}{suffix}"
    if run_directory.is_finished(directory, seeded):
        console.print(f"{directory}: trained already")
    else:
        pipeline.train(seeded, directory, console)
    return run_directory.read_summary(directory).test


def _check_comparable(configs: Sequence[Config], files: Sequence[Path]) -> None:
    first = configs[0]
    for config, file in zip(configs, files, strict=True):
        for field in ("data", "tasks"):
            if getattr(config, field) != getattr(first, field):
                raise ConfigInvalid(f"{file}: {field}: not that of {files[0]}: nothing to compare")
    names = [config.name for config in configs]
    if len(set(names)) < len(names):
        raise ConfigInvalid(f"name: the compared configurations share a name: {', '.join(names)}")
