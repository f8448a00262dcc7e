"""Results of single trainings, kept as they come, so that an interrupted reproduction goes on.

One JSON file for each training, named by a digest of its whole configuration. Remove the directory
to train anew, after a change of the code say.
"""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from model_export import pipeline
from model_export.config import Config
from model_export.pipeline import Prepared
from model_export.training import device as devices
from model_export.training import trainer
from model_export.training.evaluation import evaluate

_SILENT = Console(quiet=True)


def trained(config: Config, prepared: Prepared, cache: Path, console: Console) -> dict[str, Any]:
    """The held-out metrics of one training, from the cache where it has them.

    Returns:
        test: the metrics of the test part; validation: those of the best epoch; epochs, seconds.
    """
    path = cache / f"{config.name}-{_digest(config)}.json"
    if path.is_file():
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    started = time.monotonic()
    device = devices.choose(config.training.device)
    with devices.threads(config.training.threads), torch.random.fork_rng():
        model = pipeline.new_model(config, prepared, device)
        epochs = list(trainer.train(model, config, prepared.train, prepared.validation, _SILENT))
        test = evaluate(model, [task.served() for task in config.tasks], prepared.test)
    best = max(epochs, key=lambda epoch: epoch.objective)
    result = {
        "test": test,
        "validation": best.validation,
        "epochs": len(epochs),
        "seconds": round(time.monotonic() - started, 1),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(result))
    unfinished.replace(path)
    shown = ", ".join(
        f"{task} {name.upper()} {value:.4f}"
        for task, metrics in test.items()
        for name, value in metrics.items()
        if name in ("auc", "rmse") and value is not None
    )
    console.print(
        f"{config.name}, seed {config.seed}: {shown} ({result['seconds']} s)",
        highlight=False,
        soft_wrap=True,
    )
    return result


def _digest(config: Config) -> str:
    return hashlib.sha256(config.model_dump_json(exclude_defaults=True).encode()).hexdigest()[:16]
