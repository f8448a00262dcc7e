"""Finding the first layer: in the zoo's graphs, in those of others, and not where it is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir
import pytest
import torch
from torch import nn

from bundle.manifest import Stages
from model_export import graphs
from model_export.first_layer import first_layer
from tests.unit.model_export import networks

RELU = True


def exported(network: nn.Module, directory: Path) -> Stages:
    stages = graphs.export_stages(network, networks.SCHEMA, directory)  # type: ignore[arg-type]
    assert isinstance(stages, Stages)
    return stages


def shape(stages: Stages) -> list[tuple[int, bool]]:
    return [(part.width, part.relu) for part in stages.joint.first_layer]


def test_experts_are_rectified_and_gates_are_not(tmp_path: Path) -> None:
    network = networks.build_split("mmoe")
    found = shape(exported(network, tmp_path))
    assert sum(width for width, _ in found) == network.first_width
    assert [relu for _, relu in found] == [True] * (len(found) - 1) + [False]
    assert len(found) > 2


class Own(nn.Module):
    """Three stages whose joint part is given."""

    def __init__(self, joint: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.sides = nn.ModuleDict({"user": nn.LazyLinear(8), "item": nn.LazyLinear(8)})
        self.joint = joint

    def user_stage(self, ids: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        tensor: torch.Tensor = self.sides["user"](torch.cat((ids.float(), numbers), dim=1))
        return tensor

    def item_stage(self, ids: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        tensor: torch.Tensor = self.sides["item"](torch.cat((ids.float(), numbers), dim=1))
        return tensor

    def joint_stage(
        self, user_tensor: torch.Tensor, item_tensor: torch.Tensor, user_row: torch.Tensor
    ) -> torch.Tensor:
        return self.joint(item_tensor + user_tensor.index_select(0, user_row))


def two(first: torch.Tensor) -> torch.Tensor:
    return torch.sigmoid(first[:, :2])


@pytest.mark.parametrize(
    ("joint", "parts"),
    [
        (lambda first: two(first.relu() * 2), [(8, RELU)]),
        (two, [(8, not RELU)]),
        (lambda first: two(first.relu() + first), [(8, not RELU)]),
        (
            lambda first: two(torch.cat([p.relu() for p in first.split([5, 3], dim=1)], dim=1)),
            [(5, RELU), (3, RELU)],
        ),
        (lambda first: two(first.split([5, 3], dim=1)[0].relu() + first[:, :5]), [(8, not RELU)]),
        (lambda first: first[:, :2].clone(), [(8, not RELU)]),
    ],
)
def test_it_is_known_by_what_it_does(
    joint: Callable[[torch.Tensor], torch.Tensor], parts: list[tuple[int, bool]], tmp_path: Path
) -> None:
    assert shape(exported(Own(joint), tmp_path)) == parts


class Product(Own):
    def joint_stage(
        self, user_tensor: torch.Tensor, item_tensor: torch.Tensor, user_row: torch.Tensor
    ) -> torch.Tensor:
        return self.joint(item_tensor * user_tensor.index_select(0, user_row))


class ReadTwice(Own):
    def joint_stage(
        self, user_tensor: torch.Tensor, item_tensor: torch.Tensor, user_row: torch.Tensor
    ) -> torch.Tensor:
        return self.joint(user_tensor.index_select(0, user_row) + item_tensor) * item_tensor[:, :2]


class Itself(Own):
    def joint_stage(
        self, user_tensor: torch.Tensor, item_tensor: torch.Tensor, user_row: torch.Tensor
    ) -> torch.Tensor:
        return item_tensor + user_tensor.index_select(0, user_row)


@pytest.mark.parametrize("network", [Product, ReadTwice, Itself])
def test_other_graphs_have_none(network: type[Own], tmp_path: Path) -> None:
    assert exported(network(two), tmp_path).joint.first_layer == ()


def test_a_network_with_interest_has_none(tmp_path: Path) -> None:
    """What comes of the history is added between."""
    assert exported(networks.build("shared_bottom_din"), tmp_path).joint.first_layer == ()


def test_the_parts_are_those_of_the_graph(tmp_path: Path) -> None:
    stages = exported(networks.build_split("ple_three_levels"), tmp_path)
    graph = ir.load(tmp_path / "joint.onnx").graph
    names = {value.name for node in graph for value in node.outputs}
    assert {part.tensor for part in stages.joint.first_layer} <= names
    assert first_layer(graph) == stages.joint.first_layer
    assert sum(width for width, _ in shape(stages)) == stages.item.output_width
