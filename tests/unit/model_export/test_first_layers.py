"""Finding the first layers: in the zoo's graphs, in those of others, and not where it is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir
import pytest
import torch
from torch import nn

from bundle.stages import Dense, Stages
from model_export import graphs
from model_export.first_layers import first_layers
from tests.unit.model_export import networks

RELU = True


def exported(network: nn.Module, directory: Path) -> Stages:
    stages = graphs.export_stages(network, networks.SCHEMA, directory)  # type: ignore[arg-type]
    assert isinstance(stages, Stages)
    return stages


def shape(stages: Stages) -> list[tuple[int, bool]]:
    return [(part.width, part.relu) for part in stages.joint.first_layer]


def layers(stages: Stages) -> list[list[int]]:
    return [[layer.width for layer in part.layers] for part in stages.joint.first_layer]


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
    joint = stages.joint
    assert tuple(first_layers(graph)) == (joint.first_layer, joint.mixtures, joint.levels)
    assert stages.joint.mixtures is not None
    assert {*stages.joint.mixtures.tensors} <= names
    assert sum(width for width, _ in shape(stages)) == stages.item.output_width


@pytest.mark.parametrize(
    ("family", "found", "gates", "masked"),
    [
        ("shared_bottom", [[6]], 0, False),
        ("mmoe", [[6]] * 4 + [[]], 3, False),
        ("mmoe_one_layer", [[]] * 4, 3, False),
        ("mmoe_attention", [[6]] * 3, 0, False),  # whose gates read the experts
        ("moe", [[6]] * 4 + [[]], 1, False),
        ("cgc", [[6]] * 7 + [[]], 3, True),
        ("ple", [[6]] * 5 + [[]], 4, True),
        ("esmm", [[6, 5]] * 2, 0, False),
    ],
)
def test_layers_and_mixtures_of_the_zoo_are_found(
    family: str, found: list[list[int]], gates: int, masked: bool, tmp_path: Path
) -> None:
    stages = exported(networks.build(family), tmp_path)
    mixtures = stages.joint.mixtures
    assert layers(stages) == found
    assert (len(mixtures.tensors) if mixtures else 0) == gates
    assert (mixtures is not None and mixtures.mask is not None) == masked


def linear(x: torch.Tensor, width: int, **change: bool) -> torch.Tensor:
    weight = torch.arange(float(width * x.shape[1])).reshape(width, -1)
    return nn.functional.linear(x, weight, torch.ones(width) if change.get("bias") else None)


@pytest.mark.parametrize(
    ("joint", "found"),
    [
        (lambda x: two(linear(x.relu(), 6, bias=True).relu() * 2), [(6, True)]),
        (lambda x: two(linear(x.relu(), 6).relu() * 2), [(6, False)]),
        (lambda x: two(linear(x.relu(), 6)), []),  # without a ReLU
        (lambda x: two(linear(x, 6).relu()), []),  # before a ReLU
        (lambda x: two(linear(x.relu(), 6).relu() + x.relu()[:, :6]), []),  # read twice
        (lambda x: two(torch.addmm(x[:, :6] * 0, x.relu(), torch.ones(8, 6)).relu()), []),
        (lambda x: two((x.relu() @ torch.ones(8, 6)).relu()), []),
    ],
)
def test_layers_are_linear_and_rectified(
    joint: Callable[[torch.Tensor], torch.Tensor], found: list[tuple[int, bool]], tmp_path: Path
) -> None:
    stages = exported(Own(joint), tmp_path)
    (part,) = stages.joint.first_layer
    assert [(layer.width, layer.bias is not None) for layer in part.layers] == found
    assert all(isinstance(layer, Dense) for layer in part.layers)


def gated(first: torch.Tensor, axis: int = -1, order: int = 1, again: bool = False) -> torch.Tensor:
    """Two experts of width 2 and two gates."""
    one, other, logits = torch.split(first, [2, 2, 4], dim=1)
    experts = [one.relu(), other.relu()][::order]
    weights = torch.softmax(logits.reshape(-1, 2, 2), dim=axis)
    a, b = torch.matmul(weights, torch.stack(experts, dim=1)).unbind(dim=1)
    return torch.sigmoid(a + 2 * b + experts[0] if again else a + 2 * b)


@pytest.mark.parametrize(
    ("joint", "found"),
    [
        (gated, True),
        (lambda first: gated(first, axis=1), False),
        (lambda first: gated(first, order=-1), False),
        (lambda first: gated(first, again=True), False),
    ],
)
def test_mixtures_are_known_by_what_they_do(
    joint: Callable[[torch.Tensor], torch.Tensor], found: bool, tmp_path: Path
) -> None:
    stages = exported(Own(joint), tmp_path)
    assert len(stages.joint.first_layer) == 3
    assert (stages.joint.mixtures is not None) == found


def test_levels_are_found_up_to_the_towers(tmp_path: Path) -> None:
    joint = exported(networks.build("ple_three_levels"), tmp_path).joint
    experts = [[(b.stream, [y.width for y in b.layers]) for b in x.experts] for x in joint.levels]
    streams = [0, 0, 1, 1, 2, 2, 3, 3, 3]
    assert experts == [[(each, [6, 4]) for each in streams], [(each, [5]) for each in streams]]
    assert [[gate.stream for gate in level.gates] for level in joint.levels] == [
        [0, 1, 2, 3],
        [0, 1, 2],
    ]
    assert [*joint.computed_ahead.values()] == [5, 5, 5]
    names = {v.name for node in ir.load(tmp_path / "joint.onnx").graph for v in node.outputs}
    assert joint.computed_ahead.keys() <= names


def second_level(first: torch.Tensor, read: bool = False, other: bool = False) -> torch.Tensor:
    """Two more experts and gates of one, over the mixtures of two."""
    one, two_, logits = torch.split(first, [2, 2, 4], dim=1)
    weights = torch.softmax(logits.reshape(-1, 2, 2), dim=-1)
    a, b = torch.matmul(weights, torch.stack([one.relu(), two_.relu()], dim=1)).unbind(dim=1)
    experts = [linear(a, 3).relu(), linear(b, 3).relu()]
    gates = torch.stack([linear(a, 2), linear(b, 2)], dim=1)
    gates = torch.tanh(gates) if other else gates
    mixed = torch.matmul(torch.softmax(gates, dim=-1), torch.stack(experts, dim=1))
    c, d = mixed.unbind(dim=1)
    scores = c[:, :2] + 2 * d[:, :2]
    return torch.sigmoid(scores + a if read else scores)


@pytest.mark.parametrize(
    ("joint", "levels"),
    [
        (second_level, 1),
        (lambda first: second_level(first, read=True), 0),
        (lambda first: second_level(first, other=True), 0),
    ],
)
def test_a_level_is_known_by_what_it_does(
    joint: Callable[[torch.Tensor], torch.Tensor], levels: int, tmp_path: Path
) -> None:
    stage = exported(Own(joint), tmp_path).joint
    assert stage.mixtures is not None
    assert len(stage.levels) == levels
