"""The graph from elsewhere, with what a bundle's single stage takes and gives put around it.

    user_ids [U, K] ... user_row [N] -> columns -> indices -> types -> the graph -> scores [N, T]

The graph itself is left as it is, under names of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bundle.encoding import Side, side_layout
from bundle.schema import FIRST_VALUE_INDEX, OUT_OF_VOCABULARY_INDEX, PADDING_INDEX
from bundle.stages import SingleStage, Stage
from model_export.errors import SpecInvalid
from model_export.foreign.signature import Block, Signature, Value, blocks
from model_export.foreign.spec import Indices, SpecTask
from model_export.foreign.specification import Specification

FILE = "single.onnx"
_INPUTS = ("user_ids", "user_numbers", "item_ids", "item_numbers", "user_row")
_OUTPUT = "task_scores"
_LEAST_OPSET, _OPSET_WHERE_NONE = 9, 18
_EXTERNAL_BYTES = 64 << 20


def wrap(model: onnx.ModelProto, specification: Specification, directory: Path) -> SingleStage:
    """Write `single.onnx`, and its weights beside it when they are large.

    Args:
        model: the graph, checked against the specification; it is changed.

    Raises:
        SpecInvalid: the graph is of an operator set before that of 2019.
    """
    _check_opset(model, specification)
    signature = Signature.of(model)
    names = {name: f"graph/{name}" for name in (*_INPUTS, _OUTPUT)}
    _rename(model.graph, names)
    before, after = _Nodes("feed", names), _Nodes("score", names)
    for value in signature.inputs.values():
        _feed(before, specification, value)
    _scores(after, signature, specification)
    graph, tasks = model.graph, len(specification.spec.tasks)
    nodes = [*before.nodes, *graph.node, *after.nodes]
    for field in (graph.input, graph.output, graph.node):
        del field[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*before.constants, *after.constants])
    graph.input.extend(_input(name, specification) for name in before.reads)
    graph.output.append(helper.make_tensor_value_info(_OUTPUT, TensorProto.FLOAT, ["rows", tasks]))
    _save(model, directory / FILE)
    stage = Stage(file=FILE, inputs=before.reads, output=_OUTPUT, output_width=tasks)
    return SingleStage(single=stage)


def _check_opset(model: onnx.ModelProto, specification: Specification) -> None:
    opsets = {each.domain: each.version for each in model.opset_import}
    opset = opsets.get("", opsets.get("ai.onnx"))
    if opset is None:
        model.opset_import.append(helper.make_opsetid("", _OPSET_WHERE_NONE))
    elif opset < _LEAST_OPSET:
        raise SpecInvalid(
            f"{specification.path}: the graph is of operator set {opset}, at least {_LEAST_OPSET} "
            "is needed; convert it with onnx.version_converter"
        )


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Rename tensors, in the graphs inside control flow as well."""
    for node in graph.node:
        for field in (node.input, node.output):
            field[:] = [names.get(name, name) for name in field]
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                _rename(inner, names)
    for values in (graph.input, graph.output, graph.value_info, graph.initializer):
        for value in values:
            value.name = names.get(value.name, value.name)


def _input(name: str, specification: Specification) -> onnx.ValueInfoProto:
    if name == "user_row":
        return helper.make_tensor_value_info(name, TensorProto.INT64, ["rows"])
    side: Side = "user" if name.startswith("user") else "item"
    layout = side_layout(specification.features, side)
    rows = "users" if side == "user" else "rows"
    if name.endswith("ids"):
        return helper.make_tensor_value_info(name, TensorProto.INT32, [rows, layout.id_width])
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows, layout.number_width])


def _save(model: onnx.ModelProto, path: Path) -> None:
    """Large weights go into a file beside the graph: a graph file ends at 2 GiB."""
    weights = sum(len(each.raw_data) for each in model.graph.initializer)
    if weights < _EXTERNAL_BYTES:
        onnx.save_model(model, str(path))
        return
    location = f"{path.name}.data"
    onnx.save_model(model, str(path), save_as_external_data=True, location=location)


class _Nodes:
    """Nodes and constants in the making.

    Args:
        part: distinguishes their names from others'.
        names: those of the graph's tensors that had to be renamed.
    """

    def __init__(self, part: str, names: Mapping[str, str]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._read: set[str] = set()
        self._new = (f"multirank/{part}/{number}" for number in itertools.count())
        self._names = names

    @property
    def reads(self) -> tuple[str, ...]:
        """The bundle's inputs that the nodes use, in the manifest's order."""
        return tuple(name for name in _INPUTS if name in self._read)

    def read(self, name: str) -> str:
        """An input of the bundle."""
        self._read.add(name)
        return name

    def of_graph(self, name: str) -> str:
        """A tensor of the graph."""
        return self._names.get(name, name)

    def constant(self, values: Any, dtype: type[np.generic]) -> str:
        """A constant."""
        name = next(self._new)
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def add(self, operator: str, *inputs: str, gives: str | None = None, **attributes: Any) -> str:
        """A node; returns the name of its output."""
        output = gives or next(self._new)
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output


def _feed(nodes: _Nodes, specification: Specification, value: Value) -> None:
    parts = []
    for block in blocks(specification, value.name):
        columns = _columns(nodes, block, specification.indices[block.features[0]])
        element = helper.np_dtype_to_tensor_dtype(np.dtype(value.type))
        parts.append(nodes.add("Cast", columns, to=element))
    whole = parts[0] if len(parts) == 1 else nodes.add("Concat", *parts, axis=1)
    name = nodes.of_graph(value.name)
    if value.shape is not None and len(value.shape) == 1:
        nodes.add("Reshape", whole, nodes.constant([-1], np.int64), gives=name)
    else:
        nodes.add("Identity", whole, gives=name)


def _columns(nodes: _Nodes, block: Block, indices: Indices) -> str:
    """The block's columns, a row a candidate."""
    matrix = nodes.read(f"{block.side}_{block.matrix}")
    found = nodes.add("Gather", matrix, nodes.constant(block.columns, np.int64), axis=1)
    if block.matrix == "ids" and indices != Indices():
        found = _reindexed(nodes, found, indices)
    if block.side == "user":
        found = nodes.add("Gather", found, nodes.read("user_row"), axis=0)
    return found


def _reindexed(nodes: _Nodes, ids: str, indices: Indices) -> str:
    def number(value: int) -> str:
        return nodes.constant(value, np.int32)

    found = nodes.add("Add", ids, number(indices.first - FIRST_VALUE_INDEX))
    for ours, theirs in (
        (OUT_OF_VOCABULARY_INDEX, indices.unknown),
        (PADDING_INDEX, indices.padding),
    ):
        found = nodes.add("Where", nodes.add("Equal", ids, number(ours)), number(theirs), found)
    return found


def _scores(nodes: _Nodes, signature: Signature, specification: Specification) -> None:
    """Task scores [N, T]; neighbouring tasks of one output are one block."""

    def source(task: SpecTask) -> tuple[str, str | None]:
        return signature.output_of(specification, task).name, task.activation

    parts = []
    for (output, activation), tasks in itertools.groupby(specification.spec.tasks, source):
        found, value = nodes.of_graph(output), signature.outputs[output]
        if value.shape is not None and len(value.shape) == 1:
            found = nodes.add("Reshape", found, nodes.constant([-1, 1], np.int64))
        columns = [task.column or 0 for task in tasks]
        found = nodes.add("Gather", found, nodes.constant(columns, np.int64), axis=1)
        found = nodes.add("Cast", found, to=TensorProto.FLOAT)
        parts.append(nodes.add("Sigmoid", found) if activation == "sigmoid" else found)
    nodes.add("Concat", *parts, gives=_OUTPUT, axis=1)
