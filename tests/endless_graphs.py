"""Graphs that go on for ever, or nearly, once one row asks them to."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def endless_where(graph: onnx.ModelProto, above: float) -> None:
    """Let the graph loop, 2^62 times, in runs where a score is above a limit; not in others.

    What it gives is what it gave, for those who wait.
    """
    (output,) = graph.graph.output
    for node in graph.graph.node:
        for place, name in enumerate(node.output):
            if name == output.name:
                node.output[place] = "before"
    scalar = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["goes_on"], ["goes_on_out"]),
            helper.make_node("Identity", ["scores"], ["scores_out"]),
        ],
        "body",
        [
            scalar("turn", TensorProto.INT64, []),
            scalar("goes_on", TensorProto.BOOL, []),
            scalar("scores", TensorProto.FLOAT, None),
        ],
        [
            scalar("goes_on_out", TensorProto.BOOL, []),
            scalar("scores_out", TensorProto.FLOAT, None),
        ],
    )
    graph.graph.node.extend(
        [
            helper.make_node("ReduceMax", ["before"], ["largest"], keepdims=0),
            helper.make_node("Greater", ["largest", "limit"], ["is_endless"]),
            helper.make_node("Loop", ["turns", "is_endless", "before"], [output.name], body=body),
        ]
    )
    graph.graph.initializer.append(numpy_helper.from_array(np.array(above, np.float32), "limit"))
    graph.graph.initializer.append(numpy_helper.from_array(np.array(2**62, np.int64), "turns"))
