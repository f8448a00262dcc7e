"""The joint stage: with its first layers computed ahead it gives what its whole graph gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data

from bundle.errors import GraphInvalid, GraphMismatch
from bundle.stages import Part, Stage
from service.scoring.joint import Joint
from service.scoring.runs import UNWATCHED

WIDTH = 7
PARTS = (Part(tensor="rectified", width=4, relu=True), Part(tensor="rest", width=3, relu=False))
STAGE = Stage(
    file="joint.onnx",
    inputs=("user_tensor", "item_tensor", "user_row"),
    output="task_scores",
    output_width=2,
    first_layer=PARTS,
)
USERS = np.random.default_rng(1).standard_normal((3, WIDTH), np.float32)
ITEMS = np.random.default_rng(2).standard_normal((1000, WIDTH), np.float32)


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """A joint graph of two parts, whose weights lie in a file beside it."""
    weights = np.random.default_rng(0).standard_normal((WIDTH, 2), np.float32)
    nodes = [
        helper.make_node("Gather", ["user_tensor", "user_row"], ["users"], axis=0),
        helper.make_node("Add", ["users", "item_tensor"], ["sum"]),
        helper.make_node("Split", ["sum", "cuts"], ["first", "rest"], axis=1),
        helper.make_node("Relu", ["first"], ["rectified"]),
        helper.make_node("Concat", ["rectified", "rest"], ["joined"], axis=1),
        helper.make_node("MatMul", ["joined", "weights"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["task_scores"]),
    ]
    inputs = [
        helper.make_tensor_value_info("user_tensor", TensorProto.FLOAT, ["u", WIDTH]),
        helper.make_tensor_value_info("item_tensor", TensorProto.FLOAT, ["n", WIDTH]),
        helper.make_tensor_value_info("user_row", TensorProto.INT64, ["n"]),
    ]
    outputs = [helper.make_tensor_value_info("task_scores", TensorProto.FLOAT, ["n", 2])]
    tensors = [
        numpy_helper.from_array(np.array([4, 3]), "cuts"),
        numpy_helper.from_array(weights, "weights"),
    ]
    made = helper.make_graph(nodes, "joint", inputs, outputs, tensors)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    (tmp_path / "weights.bin").write_bytes(tensors[1].raw_data)
    set_external_data(tensors[1], "weights.bin", length=weights.nbytes)
    made.initializer[1].CopyFrom(tensors[1])
    made.initializer[1].ClearField("raw_data")
    onnx.save(model, tmp_path / "joint.onnx")
    return tmp_path / "joint.onnx"


@pytest.mark.parametrize("rows", [0, 1, 2, 999])
def test_scores_are_those_of_the_whole_graph(
    graph: Path, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.scoring.joint._AHEAD_BYTES", 100 * 4 * WIDTH)  # ten blocks
    whole = STAGE.model_copy(update={"first_layer": ()})
    user_row = np.random.default_rng(3).integers(0, 3, rows)
    ahead, expected = (
        Joint(graph, stage, WIDTH, 1, UNWATCHED).scores(USERS, ITEMS[:rows], user_row)
        for stage in (STAGE, whole)
    )
    assert ahead.shape == (rows, 2)
    np.testing.assert_array_equal(ahead, expected)


def test_the_whole_graph_is_judged_though_its_end_alone_is_run(graph: Path) -> None:
    model = onnx.load(str(graph), load_external_data=False)
    model.graph.node[0].op_type = "Collect"
    onnx.save(model, graph)
    with pytest.raises(GraphInvalid, match=r"joint\.onnx: onnxruntime refuses it: .*Collect"):
        Joint(graph, STAGE, WIDTH, 1, UNWATCHED)


def test_its_inputs_must_be_those_promised(graph: Path) -> None:
    promised = STAGE.model_copy(update={"inputs": ("user_tensor", "item_tensor", "row")})
    with pytest.raises(GraphMismatch, match=r"has inputs .* the manifest promises"):
        Joint(graph, promised, WIDTH, 1, UNWATCHED)


def test_its_parts_must_be_as_wide_as_the_tensors(graph: Path) -> None:
    with pytest.raises(GraphMismatch, match="first layer are 7 wide, item tensors 8"):
        Joint(graph, STAGE, WIDTH + 1, 1, UNWATCHED)


@pytest.mark.parametrize(
    "parts",
    [
        (Part(tensor="nothing", width=WIDTH, relu=False),),
        (Part(tensor="rectified", width=WIDTH, relu=True),),
    ],
)
def test_parts_from_which_the_scores_do_not_follow_are_refused(
    graph: Path, parts: tuple[Part, ...]
) -> None:
    with pytest.raises(GraphInvalid, match=r"joint\.onnx: onnxruntime refuses it"):
        Joint(graph, STAGE.model_copy(update={"first_layer": parts}), WIDTH, 1, UNWATCHED)
