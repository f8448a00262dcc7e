"""The first layers of a stage are what its graph's beginning computes, of constants in its file."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

from bundle.errors import GraphMismatch
from bundle.stages import Branch, Dense, Level, Mixtures, Part, Stage
from service.native.library import Tensor
from service.scoring.first_layers import FirstLayers

RNG = np.random.default_rng(0)
CONSTANTS = {
    "w1": RNG.standard_normal((6, 9), np.float32),
    "b1": RNG.standard_normal(6, np.float32),
    "w2": RNG.standard_normal((6, 4), np.float32),
    "mask": np.array([[0, -np.inf], [0, 0]], np.float32),
}
PARTS = (
    Part(tensor="one", width=9, relu=True, layers=(Dense(width=6, weight="w1", bias="b1"),)),
    Part(tensor="two", width=4, relu=True, layers=(Dense(width=6, weight="w2", bias=None),)),
    Part(tensor="logits", width=4, relu=False),
)
WIDTH = 17
USERS, ITEMS = RNG.standard_normal((3, WIDTH), np.float32), RNG.standard_normal((500, WIDTH)) * 2


def stage(mixtures: Mixtures | None = None) -> Stage:
    inputs = ("user_tensor", "item_tensor", "user_row")
    stage = Stage(file="joint.onnx", inputs=inputs, output="task_scores", output_width=1)
    return stage.model_copy(update={"first_layer": PARTS, "mixtures": mixtures})


def graph(**changed: Any) -> bytes:
    """A file that has the constants, and nothing else that matters here."""
    tensors = [
        numpy_helper.from_array(value, name)
        for name, value in (CONSTANTS | changed).items()
        if value is not None
    ]
    model = helper.make_model(helper.make_graph([], "joint", [], [], tensors))
    return bytes(model.SerializeToString())


def expected(user_row: Any, item_row: Any) -> dict[str, Tensor]:
    sums = USERS[user_row] + ITEMS.astype(np.float32)[item_row]
    one, two, logits = np.split(sums, [9, 13], axis=1)
    layer_1 = np.maximum(np.maximum(one, 0) @ CONSTANTS["w1"].T + CONSTANTS["b1"], 0)
    layer_2 = np.maximum(np.maximum(two, 0) @ CONSTANTS["w2"].T, 0)
    return {"one": layer_1, "two": layer_2, "logits": logits}


def mixed(found: dict[str, Tensor], mask: Any) -> dict[str, Tensor]:
    weights = np.exp(found["logits"].reshape(-1, 2, 2) + mask)
    weights /= weights.sum(axis=2, keepdims=True)
    experts = np.stack([found["one"], found["two"]], axis=1)
    return dict(zip("ab", np.moveaxis(weights @ experts, 1, 0), strict=True))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("mask", [None, "mask"])
@pytest.mark.parametrize("rows", [0, 1, 63, 400])
def test_parts_and_mixtures_are_those_of_numpy(rows: int, mask: str | None, threads: int) -> None:
    user_row, item_row = RNG.integers(0, 3, rows), RNG.integers(0, 500, rows)
    items = ITEMS.astype(np.float32)
    parts = expected(user_row, item_row)
    gates = Mixtures(tensors=("a", "b"), mask=mask)
    mixtures = mixed(parts, CONSTANTS["mask"] if mask else 0)
    for given, wanted in ((stage(), parts), (stage(gates), mixtures)):
        layers = FirstLayers(given, graph(), threads)
        assert layers.width == WIDTH
        for few in (rows, rows // 2):  # the second call finds room that is too large
            found = layers.compute(USERS, user_row[:few], items, item_row[:few])
            assert found.keys() == wanted.keys()
            for name, values in found.items():
                np.testing.assert_allclose(values, wanted[name][:few], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("rows", [0, 1, 300])
def test_levels_read_the_mixtures_below(rows: int, threads: int) -> None:
    user_row, item_row = RNG.integers(0, 3, rows), RNG.integers(0, 500, rows)
    below = Mixtures(tensors=("a", "b"), mask=None)
    level = Level(
        experts=tuple(
            Branch(stream=each, layers=(Dense(width=3, weight=f"e{each}", bias=None),))
            for each in (1, 0)
        ),
        gates=(Branch(stream=0, layers=(Dense(width=2, weight="g", bias="gb"),)),),
        mixtures=Mixtures(tensors=("c",), mask=None),
    )
    weights = {
        name: RNG.standard_normal(shape).astype(np.float32)
        for name, shape in {"e0": (3, 6), "e1": (3, 6), "g": (2, 6), "gb": (2,)}.items()
    }
    layers = FirstLayers(
        stage(below).model_copy(update={"levels": (level,)}), graph(**weights), threads
    )
    found = layers.compute(USERS, user_row, ITEMS.astype(np.float32), item_row)
    a, b = mixed(expected(user_row, item_row), 0).values()
    experts = [np.maximum(x @ weights[w].T, 0) for x, w in ((b, "e1"), (a, "e0"))]
    gate = np.exp(a @ weights["g"].T + weights["gb"])
    shares = (gate / gate.sum(axis=1, keepdims=True)).T
    wanted = experts[0] * shares[0][:, None] + experts[1] * shares[1][:, None]
    assert found.keys() == {"c"}
    np.testing.assert_allclose(found["c"], wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("changed", "has"),
    [
        ({"w1": None}, "a constant w1, float32 [6, 9], in the file itself; the graph has none"),
        ({"w1": CONSTANTS["w1"].T.copy()}, "the graph has it as [9, 6]"),
        ({"w1": CONSTANTS["w1"].astype(np.float64)}, "the graph has none"),
        ({"b1": np.zeros(7, np.float32)}, "a constant b1, float32 [6], in the file itself"),
        ({"mask": np.zeros((2, 3), np.float32)}, "mask, float32 [2, 2], in the file itself"),
    ],
)
def test_constants_must_be_those_promised(changed: dict[str, Any], has: str) -> None:
    gates = Mixtures(tensors=("a", "b"), mask="mask")
    with pytest.raises(GraphMismatch, match=rf"^joint\.onnx: .*{re.escape(has)}"):
        FirstLayers(stage(gates), graph(**changed))


def test_constants_in_another_file_are_not_there() -> None:
    tensor = numpy_helper.from_array(CONSTANTS["w2"], "w2")
    tensor.ClearField("raw_data")
    model = helper.make_model(helper.make_graph([], "joint", [], [], [tensor]))
    known = graph(w2=None) + bytes(model.SerializeToString())  # messages merge as they are joined
    with pytest.raises(GraphMismatch, match="w2"):
        FirstLayers(stage(), known)
