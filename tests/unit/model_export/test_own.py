"""Modules of one's own: one stage or three, checked against torch, and told what they lack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bundle import store
from bundle.schema import Categorical, FeatureSchema, Number
from bundle.stages import SingleStage
from model_export import parity
from model_export.data.fit import FittedFeatures
from model_export.errors import ModuleUnfit, ParityFailed
from model_export.own import export_module
from model_export.training.run_directory import Examples
from tests.unit.model_export import networks

FEATURES = FittedFeatures(networks.SCHEMA, networks.VOCABULARIES)
EXAMPLES = Examples(*networks.users(5), networks.items(64))


class Linear(nn.Module):
    """All columns of both sides, scaled, into one product."""

    def __init__(self, tasks: int = 3) -> None:
        super().__init__()
        self.weight = nn.LazyLinear(tasks)
        self.noise = nn.Dropout(0.5)  # parity fails unless the export sets evaluation mode

    def single_stage(
        self,
        user_ids: torch.Tensor,
        user_numbers: torch.Tensor,
        item_ids: torch.Tensor,
        item_numbers: torch.Tensor,
        user_row: torch.Tensor,
    ) -> torch.Tensor:
        user = torch.cat((user_ids % 7, user_numbers), dim=1).index_select(0, user_row)
        x = torch.cat((user, item_ids % 5, item_numbers), dim=1)
        scores: torch.Tensor = torch.sigmoid(self.weight(self.noise(x)) / 10)
        return scores


def export(module: Any, target: Path, features: FittedFeatures = FEATURES, **changes: Any) -> Any:
    arguments: dict[str, Any] = {
        "name": "own",
        "tasks": networks.TASKS,
        "examples": EXAMPLES,
    } | changes
    export_module(module, target, features=features, **arguments)
    return store.load(target)


def test_one_stage_gives_torch_s_scores(tmp_path: Path) -> None:
    module = Linear()
    bundle = export(module, tmp_path / "bundle", training={"author": "me"})
    manifest = bundle.manifest
    assert isinstance(manifest.stages, SingleStage)
    assert len(manifest.stages.single.inputs) == 5
    assert (manifest.family, manifest.training) == ("Linear", {"author": "me"})
    users, items = networks.encoded(3, 40)
    rows = np.arange(40) % 3
    np.testing.assert_allclose(
        parity.Graphs.open(bundle.path, manifest.stages).scores(users, items, rows),
        parity.torch_scores(module, users, items, rows),
        atol=1e-6,
    )


def test_inputs_without_columns_are_left_out(tmp_path: Path) -> None:
    schema = FeatureSchema(
        features=(
            Categorical(name="city", entity="user", hash_buckets=5),
            Number(name="price", entity="item"),
        )
    )
    features = FittedFeatures(schema, {})
    layouts = features.encoder().layouts
    examples = Examples(
        users=layouts["user"].pack({"city": ["a", "b", "c"]}, 3),
        contexts=layouts["context"].empty(3),
        items=layouts["item"].pack({"price": [1.0, 2.0, None]}, 3),
    )

    class Small(Linear):
        def single_stage(self, user_ids: Any, user_numbers: Any, item_ids: Any, *rest: Any) -> Any:
            item_numbers, user_row = rest
            x = torch.cat((user_ids.index_select(0, user_row), item_numbers), dim=1)
            return torch.sigmoid(self.weight(x))

    bundle = export(Small(), tmp_path / "bundle", features, examples=examples)
    assert bundle.manifest.stages.single.inputs == ("user_ids", "item_numbers", "user_row")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    class Half(nn.Module):
        def user_stage(self, ids: Any, numbers: Any) -> Any:
            return numbers

    with pytest.raises(ModuleUnfit, match="Half has no item_stage, joint_stage, and no single_s"):
        export(Half(), tmp_path / "bundle")
    with pytest.raises(ModuleUnfit, match=r"gives scores \(64, 2\) where \(64, 3\) are due"):
        export(Linear(tasks=2), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_scores_that_differ_are_refused(tmp_path: Path) -> None:
    class Random(Linear):
        def single_stage(self, *inputs: Any) -> Any:
            scores = super().single_stage(*inputs)
            return scores + (0.1 if not torch.compiler.is_exporting() else 0.0)

    with pytest.raises(ParityFailed, match="scores differ by 1"):
        export(Random(), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
