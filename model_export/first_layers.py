"""Finding the first layers of a joint graph, for whoever runs it to compute (ADR 0044, 0048).

They are known by what they do, whoever wrote the network:

    user_tensor[user_row] + item_tensor, cut into parts     each through a ReLU or not
    max(part W^T + b, 0)                                    as often as nothing else reads a part
    softmax(last part + mask) @ stack(the other parts)      cut into one mixture a gate
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from bundle.manifest import Dense, Mixtures, Part


def first_layers(graph: ir.Graph) -> tuple[tuple[Part, ...], Mixtures | None]:
    """The parts of a joint graph's first layer, from which all scores follow; none if it has none.

    And their mixtures, if all scores follow from these.

    Args:
        graph: inputs are user_tensor, item_tensor, user_row.
    """
    total = _sum_of_both(graph)
    if total is None:
        return (), None
    found = [_part(columns) for columns in _cut(total)]
    parts = [each for each in found if each is not None]
    if len(parts) < len(found):
        return (), None
    return tuple(part for part, _ in parts), _mixtures([value for _, value in parts])


def _sum_of_both(graph: ir.Graph) -> ir.Value | None:
    """user_tensor[user_row] + item_tensor, if nothing else in the graph reads one of the three."""
    user, item, user_row = graph.inputs
    gather, add, place = _reader(user, "Gather"), _reader(item, "Add"), user_row
    if gather is None or add is None or gather.attributes.get_int("axis", 0) != 0:
        return None
    if reshape := _reader(place, "Reshape"):  # torch makes it one-dimensional, which it is
        if _numbers(reshape.inputs[1]) != [-1]:
            return None
        place = reshape.outputs[0]
    repeated = gather.outputs[0]
    if gather.inputs[1] is not place or {*add.inputs} != {repeated, item}:
        return None
    alone = _reader(place, "Gather") is gather and _reader(repeated, "Add") is add
    return add.outputs[0] if alone else None


def _cut(total: ir.Value) -> Sequence[ir.Value]:
    """What the sum is cut into; itself, if it is not."""
    split = _reader(total, "Split")
    if split is None or split.attributes.get_int("axis", 0) != 1:
        return [total]
    return split.outputs


def _part(columns: ir.Value) -> tuple[Part, ir.Value] | None:
    """A part of the first layer, and the value that has what comes of it."""
    width = columns.shape[1] if columns.shape is not None and len(columns.shape) == 2 else None
    if not isinstance(width, int):
        return None
    relu = _reader(columns, "Relu")
    value, layers = _layers(relu.outputs[0]) if relu else (columns, ())
    if not value.name or value.is_graph_output():
        return None
    return Part(tensor=value.name, width=width, relu=relu is not None, layers=layers), value


def _layers(value: ir.Value) -> tuple[ir.Value, tuple[Dense, ...]]:
    """What comes of a value by the linear layers with ReLU that alone read it, and these."""
    product = _reader(value, "Gemm")
    dense = _dense(product) if product else None
    relu = _reader(product.outputs[0], "Relu") if product else None
    if dense is None or relu is None:
        return value, ()
    last, others = _layers(relu.outputs[0])
    return last, (dense, *others)


def _dense(product: ir.Node) -> Dense | None:
    """x W^T + b, of constants; torch's linear layers are that."""
    has = product.attributes
    factors = (has.get_float("alpha", 1.0), has.get_float("beta", 1.0))
    sides = (has.get_int("transA", 0), has.get_int("transB", 0))
    _, weight, bias = (*product.inputs, None)[:3]
    numbers = _constant(weight)
    if factors != (1, 1) or sides != (0, 1) or weight is None or numbers is None:
        return None
    width = len(numbers)
    if bias is not None and np.shape(_constant(bias)) != (width,):
        return None
    return Dense(width=width, weight=weight.name or "", bias=bias.name if bias else None)


def _mixtures(parts: Sequence[ir.Value]) -> Mixtures | None:
    """What gates make of all parts but the last, which has their logits."""
    *experts, logits = parts
    weights, mask = _gate_weights(logits, len(experts))
    product = _reader(weights, "MatMul") if weights else None
    stacked = product.inputs[1] if product else None
    concat = stacked.producer() if stacked else None
    if product is None or concat is None or not _is_stack(concat, experts):
        return None
    if _reader(concat.outputs[0], "MatMul") is not product:
        return None
    tensors = _unbound(product.outputs[0])
    if tensors is None:
        return None
    return Mixtures(tensors=tensors, mask=mask.name if mask else None)


def _gate_weights(logits: ir.Value, experts: int) -> tuple[ir.Value | None, ir.Value | None]:
    """softmax(logits as [N, G, E] + mask), and the mask; none if it is another thing."""
    reshape = _reader(logits, "Reshape")
    shape = _numbers(reshape.inputs[1]) if reshape else None
    if reshape is None or shape is None or len(shape) != 3 or shape[2] != experts:
        return None, None
    value, mask = reshape.outputs[0], None
    if add := _reader(value, "Add"):
        mask = next(each for each in add.inputs if each is not value)
        numbers = _constant(mask)
        if numbers is None or list(numbers.shape) != shape[1:]:
            return None, None
        value = add.outputs[0]
    softmax = _reader(value, "Softmax")
    if softmax is None or softmax.attributes.get_int("axis", -1) not in (-1, 2):
        return None, None
    return softmax.outputs[0], mask


def _is_stack(concat: ir.Node, experts: Sequence[ir.Value]) -> bool:
    """Whether it has these experts side by side, [N, E, H], and alone reads them."""
    if concat.op_type != "Concat" or concat.attributes.get_int("axis", 0) != 1:
        return False
    rows = [_reader(expert, "Unsqueeze") for expert in experts]
    return [*concat.inputs] == [
        row.outputs[0] if row and _numbers(row.inputs[1]) == [1] else None for row in rows
    ] and all(_reader(value, "Concat") is concat for value in concat.inputs if value)


def _unbound(mixed: ir.Value) -> tuple[str, ...] | None:
    """The names of all mixtures [N, H] that are cut from [N, G, H], if it is cut into these."""
    found: dict[int, str] = {}
    for use in mixed.uses():
        cut, gate = use.node, 0
        if cut.op_type == "Slice":
            bounds = [_numbers(each) for each in cut.inputs[1:]]
            gate = (bounds[0] or [0])[0]
            if bounds not in ([[gate], [gate + 1], [1]], [[gate], [gate + 1], [1], [1]]):
                return None
            squeeze = _reader(cut.outputs[0], "Squeeze")
        else:
            squeeze = cut if cut.op_type == "Squeeze" else None
        if squeeze is None or _numbers(squeeze.inputs[1]) != [1] or gate in found:
            return None
        found[gate] = squeeze.outputs[0].name or ""
    whole = mixed.shape is not None and mixed.shape[1] == len(found)
    return tuple(found[gate] for gate in sorted(found)) if whole else None


def _reader(value: ir.Value, operator: str) -> ir.Node | None:
    """The one node that reads a value, if it does so once and is of that kind."""
    uses = tuple(value.uses())
    only = uses[0].node if len(uses) == 1 and not value.is_graph_output() else None
    return only if only is not None and only.op_type == operator else None


def _constant(value: ir.Value | None) -> Any:
    return value.const_value.numpy() if value is not None and value.const_value else None


def _numbers(value: ir.Value | None) -> list[int] | None:
    constant = _constant(value)
    return None if constant is None else [int(each) for each in constant.ravel()]
