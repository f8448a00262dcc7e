"""A small table of views, as CSV and as Parquet, and the experiment that reads it."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from model_export import config
from model_export.config import Config

Rows = list[dict[str, Any]]


def views(count: int = 240, seed: int = 0) -> Rows:
    """Views with a structure that can be learned: cheap things are clicked."""
    rng = np.random.default_rng(seed)
    rows: Rows = []
    for number in range(count):
        price = float(rng.uniform(1, 9))
        click = int(rng.random() < 1 / (1 + np.exp(2 * (price - 5))))
        rows.append(
            {
                "request": f"r{number // 4}",
                "user": f"u{number // 4 % 20}",
                "city": str(rng.choice(["Bern", "Lima", "Oslo"])),
                "item": f"i{rng.integers(30)}",
                "price": price,
                "tags": [str(tag) for tag in rng.choice(["a", "b", "c"], 2)],
                "place": number % 4,
                "when": 1_000 + number,
                "click": click,
                "seconds": float(rng.uniform(1, 60)) if click else None,
            }
        )
    return rows


def write_csv(rows: Rows, path: Path) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(rows[0])
        for row in rows:
            cells = ("|".join(cell) if isinstance(cell, list) else cell for cell in row.values())
            writer.writerow(["" if cell is None else cell for cell in cells])
    return path


def write_parquet(rows: Rows, path: Path, group_rows: int = 50) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=group_rows)
    return path


def content(files: Path | list[Path], **data: object) -> dict[str, Any]:
    """The experiment, as the content of a YAML file."""
    paths = [str(path) for path in files] if isinstance(files, list) else str(files)
    return {
        "name": "views",
        "model": "views",
        "data": {
            "loader": "table",
            "files": paths,
            "columns": {"user.home": "city"},
            "user": "user",
            "item": "item",
            **data,
        },
        "features": [
            {"name": "home", "entity": "user", "kind": "categorical", "vocabulary": "fit"},
            {"name": "item", "entity": "item", "kind": "categorical", "vocabulary": "fit"},
            {"name": "price", "entity": "item", "kind": "number"},
            {
                "name": "tags",
                "entity": "item",
                "kind": "id_list",
                "vocabulary": "fit",
                "max_length": 3,
            },
        ],
        "tasks": [
            {"name": "click", "kind": "binary"},
            {"name": "seconds", "kind": "regression", "where": "click", "minimum": 0},
        ],
        "architecture": {
            "family": "shared_bottom",
            "bottom_layers": [8],
            "embedding_width": 4,
            "tower_layers": [4],
        },
        "training": {"epochs": 2, "batch_rows": 32, "learning_rate": 0.05},
    }


def experiment(files: Path | list[Path], **data: object) -> Config:
    return config.parse(content(files, **data), "views.yaml")
