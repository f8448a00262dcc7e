"""Graphs from elsewhere, and specifications, that do not fit: what is wrong is named."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from model_export.errors import ParityFailed, SpecInvalid
from tests.foreign_graphs import SPEC, imported, write_graph

EXAMPLES: list[dict[str, Any]] = SPEC["examples"]


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    return write_graph(tmp_path / "model.onnx")


def with_feature(position: int, **changes: Any) -> dict[str, Any]:
    features = copy.deepcopy(SPEC["features"])
    features[position] |= changes
    return {"features": features}


def with_task(position: int, **changes: Any) -> dict[str, Any]:
    tasks = copy.deepcopy(SPEC["tasks"])
    tasks[position] |= changes
    return {"tasks": [{k: v for k, v in task.items() if v is not None} for task in tasks]}


def with_inputs(**changes: Any) -> dict[str, Any]:
    inputs = SPEC["inputs"] | changes
    return {"inputs": {name: keys for name, keys in inputs.items() if keys is not None}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            with_inputs(dense=None, dens=["user.age", "item.price", "context.hour"]),
            r"inputs\.dens: the graph has no such input; did you mean dense\?; it takes "
            r"dense float32 \[batch, 3\], city int64 \[batch\]",
        ),
        (with_inputs(dense=["user.age"]), "item.price feeds none of them"),
        (
            with_inputs(city=None, dense=["user.age", "item.price", "context.hour", "user.city"]),
            r"nothing feeds the graph's input city int64 \[batch\]",
        ),
        (with_inputs(film=["item.fil"]), r"inputs\.film: no feature item.fil; did you mean"),
        (
            with_inputs(dense=["user.age", "item.price", "context.hour", "user.city"]),
            r"inputs\.dense: 4 columns \(user.age 1, .*\) for the graph's input dense float32",
        ),
        (
            with_inputs(city=["item.price"], dense=["user.age", "context.hour", "user.city"]),
            r"inputs\.city: item.price is a number, .* whole numbers; declare it as categorical",
        ),
        (
            with_task(0, output="logit"),
            r"tasks\.click\.output: the graph has no output logit; did you mean logits\?",
        ),
        (with_task(0, output=None), r"tasks\.click\.output: name one of the graph's outputs: "),
        (with_task(0, column=None), r"tasks\.click\.column: say which column"),
        (with_task(1, column=2), r"tasks\.like\.column: no column 2 in .* logits float32"),
        (with_task(2, output="label"), r"tasks\.seconds\.output: .* class labels are no scores"),
        (with_task(2, name="click"), "tasks: declared twice: click"),
        (with_feature(0, std=0), r"features\.0 \(age\)\.number\.std: "),
        (with_feature(0, kind="nummer"), r"features\.0 \(age\): .*nummer"),
        (with_feature(1, vocabulary="none.txt"), r"features\.1 \(city\)\.vocabulary: No such file"),
        (with_feature(2, shares="item.movie"), r"features: .*shares 'item.movie'"),
        ({"examples": [EXAMPLES[0] | {"item.prize": 1}]}, r"column item\.prize: .*item\.price"),
        ({"examples": [{"user.age": 1}]}, r"examples: no column context\.hour, item\.film"),
        (
            {"examples": [EXAMPLES[0], EXAMPLES[1] | {"item.price": "dear"}]},
            r"examples\[1\]: item\.price: expected a number, got str",
        ),
        ({"examples": "rows.parquet"}, r"examples: rows\.parquet: not a readable Parquet file"),
        ({"tusks": []}, r"tusks: Extra inputs"),
    ],
)
def test_what_does_not_fit_is_named(graph: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecInvalid, match=said):
        imported(graph, **changes)
    assert not (graph.parent / "bundle").exists()


def test_a_graph_for_one_row_is_refused(tmp_path: Path) -> None:
    graph = write_graph(tmp_path / "model.onnx", first_axis=1)
    with pytest.raises(SpecInvalid, match=r"takes 1 rows and no other .* dynamic first axis"):
        imported(graph)


def change_graph(change: Callable[[onnx.ModelProto], object]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        model = onnx.load(str(path))
        change(model)
        onnx.save(model, str(path))

    return apply


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.unlink(), "No such file"),
        (lambda path: path.write_bytes(b"no graph at all"), "not an ONNX graph"),
        (
            change_graph(lambda m: m.graph.node[0].CopyFrom(helper.make_node("Nope", [], ["x"]))),
            "onnxruntime refuses it",
        ),
        (change_graph(lambda m: m.opset_import[0].CopyFrom(helper.make_opsetid("", 8))), "refuses"),
        (
            change_graph(
                lambda m: m.graph.input[0].type.tensor_type.__setattr__(
                    "elem_type", TensorProto.STRING
                )
            ),
            r"dense string \[batch, 3\]: only .* can be fed",
        ),
    ],
)
def test_what_is_no_good_graph_is_refused(
    graph: Path, spoil: Callable[[Path], object], said: str
) -> None:
    spoil(graph)
    with pytest.raises(SpecInvalid, match=said):
        imported(graph)


def logits_through(*nodes: onnx.NodeProto, **constants: Any) -> Callable[[Path], None]:
    """Let nodes make `logits` of `before`, which the graph gave."""

    def change(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            node.output[:] = ["before" if name == "logits" else name for name in node.output]
        model.graph.node.extend(nodes)
        for name, value in constants.items():
            model.graph.initializer.append(numpy_helper.from_array(value, name))

    return change_graph(change)


@pytest.mark.parametrize(
    ("spoil", "error", "said"),
    [
        (
            logits_through(
                helper.make_node("ReduceMean", ["before"], ["mean"], axes=[0]),
                helper.make_node("Sub", ["before", "mean"], ["logits"]),
            ),
            ParityFailed,
            r"examples\[0\]: \w+ is .* scored alone, .* beside the others; requests are scored",
        ),
        (
            logits_through(
                helper.make_node("RandomUniformLike", ["before"], ["chance"]),
                helper.make_node("Add", ["before", "chance"], ["logits"]),
            ),
            ParityFailed,
            "and not on chance",
        ),
        (
            logits_through(
                helper.make_node("Slice", ["before", "from", "to"], ["logits"]),
                **{"from": np.array([0], np.int64), "to": np.array([-1], np.int64)},
            ),
            SpecInvalid,
            r"tasks\.click\.output: output logits is \[2, 2\] for 3 candidates; it needs a row for",
        ),
    ],
)
def test_scores_that_are_not_a_rows_own_are_refused(
    graph: Path, spoil: Callable[[Path], object], error: type[Exception], said: str
) -> None:
    spoil(graph)
    with pytest.raises(error, match=said):
        imported(graph)
    assert not (graph.parent / "bundle").exists()
