"""A short training of an architecture on the tiny feed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from model_export import config, pipeline
from model_export.models.base import MultiTaskModel
from model_export.training import run_directory
from tests.unit.model_export import experiments


def trained(
    architecture: dict[str, Any], directory: Path, batch_rows: int, **data: object
) -> MultiTaskModel:
    """The network after three epochs; `data` changes the feed."""
    tiny = experiments.tiny()
    content = experiments.tiny(
        architecture={"embedding_width": 4, "tower_layers": [4], **architecture},
        data={**tiny["data"], **data},
        training={"epochs": 3, "batch_rows": batch_rows, "learning_rate": 0.1},
    )
    return run_directory.read(pipeline.train(config.parse(content, "tiny"), directory)).model
