"""Finding the first layers of a joint graph, for whoever runs it to compute (ADR 0044, 0048).

They are known by what they do, whoever wrote the network:

    user_tensor[user_row] + item_tensor, cut into parts     each through a ReLU or not
    max(part W^T + b, 0)                                    as often as nothing else reads a part
    softmax(last part + mask) @ stack(the other parts)      cut into one mixture a gate

and levels above, of experts and gates that read these mixtures, which nothing else does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir

from bundle.stages import Branch, Dense, Level, Mixtures, Part


class FirstLayers(NamedTuple):
    """What a stage says of them (`bundle.stages.Stage`)."""

    first_layer: tuple[Part, ...] = ()
    mixtures: Mixtures | None = None
    levels: tuple[Level, ...] = ()


def first_layers(graph: ir.Graph) -> FirstLayers:
    """Those of a joint graph; from the last of them alone all scores follow.

    Args:
        graph: inputs are user_tensor, item_tensor, user_row.
    """
    total = _sum_of_both(graph)
    if total is None:
        return FirstLayers()
    found = [_part(columns) for columns in _cut(total)]
    parts = [each for each in found if each is not None]
    if len(parts) < len(found):
        return FirstLayers()
    first_layer = tuple(part for part, _ in parts)
    *experts, logits = (value for _, value in parts)
    mixed = _mixed(experts, *_weights_of_part(logits, len(experts)))
    if mixed is None:
        return FirstLayers(first_layer)
    mixtures, streams = mixed
    return FirstLayers(first_layer, mixtures, tuple(_levels(streams)))


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
    """x W^T + b, of constants, if it is one; torch's linear layers are."""
    if product.op_type != "Gemm":
        return None
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


def _levels(streams: Sequence[ir.Value]) -> Iterator[Level]:
    """Levels over mixtures, from the lowest up, as far as a level alone reads the one below."""
    while level := _level(streams):
        found, streams = level
        yield found


def _level(streams: Sequence[ir.Value]) -> tuple[Level, Sequence[ir.Value]] | None:
    """The level that reads these streams, if nothing else does, and its mixtures."""
    experts: dict[ir.Value, Branch] = {}
    gates: dict[ir.Value, Branch] = {}
    for number, stream in enumerate(streams):
        if stream.is_graph_output():
            return None
        for use in stream.uses():
            dense = _dense(use.node)
            if dense is None:
                return None
            relu = _reader(use.node.outputs[0], "Relu")
            last, layers = _layers(relu.outputs[0]) if relu else (use.node.outputs[0], ())
            branches = experts if relu else gates
            branches[last] = Branch(stream=number, layers=(dense, *layers))
    stacks = [_stack_of(values) for values in (experts, gates)]
    if not all(stacks):
        return None
    (_, in_order), (logits, gates_in_order) = (stack for stack in stacks if stack)
    mixed = _mixed(in_order, *_weights(logits, [len(gates), len(experts)]))
    if mixed is None:
        return None
    mixtures, mixed_values = mixed
    level = Level(
        experts=tuple(experts[value] for value in in_order),
        gates=tuple(gates[value] for value in gates_in_order),
        mixtures=mixtures,
    )
    return level, mixed_values


def _mixed(
    experts: Sequence[ir.Value], weights: ir.Value | None, mask: ir.Value | None
) -> tuple[Mixtures, Sequence[ir.Value]] | None:
    """What gates of these weights make of experts, if nothing else reads any of them."""
    product = _reader(weights, "MatMul") if weights else None
    stack = _stack_of(experts)
    if product is None or stack is None or stack[1] != [*experts]:
        return None
    if product.inputs[1] is not stack[0] or _reader(stack[0], "MatMul") is not product:
        return None
    values = _unbound(product.outputs[0])
    if values is None:
        return None
    tensors = tuple(value.name or "" for value in values)
    return Mixtures(tensors=tensors, mask=mask.name if mask else None), values


def _weights_of_part(logits: ir.Value, experts: int) -> tuple[ir.Value | None, ir.Value | None]:
    """Weights [N, G, E] of gates whose logits are a part [N, G * E], and their mask."""
    reshape = _reader(logits, "Reshape")
    shape = _numbers(reshape.inputs[1]) if reshape else None
    if reshape is None or shape is None or len(shape) != 3 or shape[2] != experts:
        return None, None
    return _weights(reshape.outputs[0], shape[1:])


def _weights(logits: ir.Value, shape: Sequence[int]) -> tuple[ir.Value | None, ir.Value | None]:
    """softmax(logits [N, G, E] + mask), and the mask; none if it is another thing."""
    value, mask = logits, None
    if add := _reader(value, "Add"):
        mask = next(each for each in add.inputs if each is not value)
        numbers = _constant(mask)
        if numbers is None or [*numbers.shape] != [*shape]:
            return None, None
        value = add.outputs[0]
    softmax = _reader(value, "Softmax")
    if softmax is None or softmax.attributes.get_int("axis", -1) not in (-1, 2):
        return None, None
    return softmax.outputs[0], mask


def _stack_of(values: Collection[ir.Value]) -> tuple[ir.Value, list[ir.Value]] | None:
    """Values [N, H] side by side, [N, E, H], and their order there, if nothing else reads one."""
    rows = {
        row.outputs[0]: value
        for value in values
        if (row := _reader(value, "Unsqueeze")) and _numbers(row.inputs[1]) == [1]
    }
    concats = {_reader(row, "Concat") for row in rows}
    concat = concats.pop() if len(concats) == 1 else None
    if concat is None or concat.attributes.get_int("axis", 0) != 1 or len(rows) < len(values):
        return None
    order = [rows[each] for each in concat.inputs if each in rows]
    return (concat.outputs[0], order) if len(order) == len(concat.inputs) else None


def _unbound(mixed: ir.Value) -> Sequence[ir.Value] | None:
    """All mixtures [N, H] that are cut from [N, G, H], in order, if it is cut into these."""
    found: dict[int, ir.Value] = {}
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
        found[gate] = squeeze.outputs[0]
    whole = mixed.shape is not None and mixed.shape[1] == len(found)
    return [found[gate] for gate in sorted(found)] if whole else None


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
