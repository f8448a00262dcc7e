"""Finding the first layer of a joint graph, for whoever runs it to compute (ADR 0044).

It is known by what it does, whoever wrote the network:

    user_tensor[user_row] + item_tensor, cut into parts; each through a ReLU or not
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bundle.manifest import Part


def first_layer(graph: ir.Graph) -> tuple[Part, ...]:
    """The parts of a joint graph's first layer, from which all scores follow; none if it has none.

    Args:
        graph: inputs are user_tensor, item_tensor, user_row.
    """
    total = _sum_of_both(graph)
    if total is None:
        return ()
    found = [_part(column) for column in _cut(total)]
    parts = tuple(part for part in found if part is not None)
    return parts if len(parts) == len(found) else ()


def _sum_of_both(graph: ir.Graph) -> ir.Value | None:
    """user_tensor[user_row] + item_tensor, if nothing else in the graph reads one of the three."""
    user, item, user_row = graph.inputs
    gather, add, place = _reader(user, "Gather"), _reader(item, "Add"), user_row
    if gather is None or add is None or gather.attributes.get_int("axis", 0) != 0:
        return None
    if reshape := _reader(place, "Reshape"):  # torch makes it one-dimensional, which it is
        if not _is_flat(reshape.inputs[1]):
            return None
        place = reshape.outputs[0]
    repeated = gather.outputs[0]
    if gather.inputs[1] is not place or {*add.inputs} != {repeated, item}:
        return None
    alone = _reader(place, "Gather") is gather and _reader(repeated, "Add") is add
    return add.outputs[0] if alone else None


def _cut(total: ir.Value) -> list[ir.Value]:
    """What the sum is cut into; itself, if it is not."""
    split = _reader(total, "Split")
    if split is None or split.attributes.get_int("axis", 0) != 1:
        return [total]
    return list(split.outputs)


def _part(columns: ir.Value) -> Part | None:
    width = columns.shape[1] if columns.shape is not None and len(columns.shape) == 2 else None
    if not isinstance(width, int):
        return None
    relu = _reader(columns, "Relu")
    value = relu.outputs[0] if relu else columns
    if not value.name or value.is_graph_output():
        return None
    return Part(tensor=value.name, width=width, relu=relu is not None)


def _reader(value: ir.Value, operator: str) -> ir.Node | None:
    """The one node that reads a value, if it does so once and is of that kind."""
    uses = tuple(value.uses())
    only = uses[0].node if len(uses) == 1 and not value.is_graph_output() else None
    return only if only is not None and only.op_type == operator else None


def _is_flat(shape: ir.Value | None) -> bool:
    constant = shape.const_value if shape is not None else None
    return constant is not None and np.array_equal(constant.numpy(), [-1])
