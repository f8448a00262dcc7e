"""A tiny experiment on the synthetic feed, as the content of a YAML file."""

from __future__ import annotations

from typing import Any


def tiny(**changes: object) -> dict[str, Any]:
    """A fresh copy, with `changes` to its top-level fields."""
    return {
        "name": "tiny",
        "model": "tiny",
        "seed": 3,
        "data": {
            "loader": "synthetic",
            "users": 40,
            "items": 30,
            "impressions": 200,
            "candidates": 4,
            "history": 5,
        },
        "features": [
            {"name": "age", "entity": "user", "kind": "bucketised", "quantiles": 4},
            {"name": "segment", "entity": "user", "kind": "categorical", "vocabulary": "fit"},
            {
                "name": "history",
                "entity": "user",
                "kind": "id_list",
                "shares": "item.item_id",
                "max_length": 5,
            },
            {"name": "hour", "entity": "context", "kind": "number"},
            {"name": "item_id", "entity": "item", "kind": "categorical", "vocabulary": "fit"},
            {"name": "price", "entity": "item", "kind": "number"},
        ],
        "tasks": [
            {"name": "click", "kind": "binary"},
            {"name": "like", "kind": "binary", "where": "click"},
            {"name": "watch_seconds", "kind": "regression", "where": "click"},
        ],
        "architecture": {
            "family": "mmoe",
            "experts": 2,
            "expert_layers": [8],
            "embedding_width": 4,
            "tower_layers": [4],
        },
        "training": {"epochs": 2, "batch_rows": 256, "learning_rate": 0.02},
        "fusion": {"formula": "click * like", "owner": "tests"},
        **changes,
    }
