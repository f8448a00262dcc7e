"""Cutting the beginning off an ONNX graph, for tensors that are computed elsewhere.

Only what is cut is known here of ONNX's messages (onnx.proto), and what it is computed from;
protobuf keeps all else as it is. What comes of it is judged by onnxruntime, as any graph is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from service.native.library import Tensor

_OPTIONAL = FieldDescriptorProto.Label.Value("LABEL_OPTIONAL")
_REPEATED = FieldDescriptorProto.Label.Value("LABEL_REPEATED")
_FLOAT = 1
_MESSAGES: dict[str, dict[int, str]] = {
    "Dimension": {1: "int64 value", 2: "string parameter"},
    "Shape": {1: "Dimension* dimensions"},
    "TensorType": {1: "int32 element", 2: "Shape shape"},
    "Type": {1: "TensorType tensor"},
    "ValueInfo": {1: "string name", 2: "Type type"},
    "Node": {1: "string* inputs", 2: "string* outputs"},
    "Constant": {1: "int64* shape", 2: "int32 element", 8: "string name", 9: "bytes content"},
    "Graph": {1: "Node* nodes", 5: "Constant* constants", 11: "ValueInfo* inputs"},
    "Model": {7: "Graph graph"},
}
"""Of the messages, by the numbers that the fields have in files; * for fields that repeat."""


def cut(model: bytes, given: Mapping[str, int]) -> bytes:
    """A model that is given some tensors, float32 [N, width], and computes what follows from them.

    Args:
        model: a file's content.
        given: names of tensors, and their widths; the inputs of the cut model.

    Raises:
        google.protobuf.message.DecodeError: the bytes are no ONNX model.
    """
    parsed = _Model.FromString(model)
    graph = parsed.graph
    gone = {value.name for value in graph.inputs}
    unneeded = []
    for place, node in enumerate(graph.nodes):  # each comes after those that it reads
        outputs = {*node.outputs}
        if not gone.isdisjoint(node.inputs):
            gone |= outputs - given.keys()
        elif given.keys().isdisjoint(outputs):
            continue
        unneeded.append(place)
    for place in reversed(unneeded):
        del graph.nodes[place]
    del graph.inputs[:]
    for name, width in given.items():
        tensor = graph.inputs.add(name=name).type.tensor
        tensor.element = _FLOAT
        tensor.shape.dimensions.add(parameter="given_rows")
        tensor.shape.dimensions.add(value=width)
    rest: bytes = parsed.SerializeToString()
    return rest


def constants(model: bytes) -> dict[str, Tensor]:
    """Constants of a model, by name: those that are float32 and whose numbers are in the file.

    Raises:
        google.protobuf.message.DecodeError: the bytes are no ONNX model.
    """
    return {
        each.name: np.frombuffer(each.content, "<f4").reshape(each.shape)
        for each in _Model.FromString(model).graph.constants
        if each.element == _FLOAT and len(each.content) == 4 * math.prod(each.shape)
    }


def _model_class() -> Any:
    file = FileDescriptorProto(name="cut.proto", syntax="proto2")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, declared in fields.items():
            kind, field = declared.split()
            repeats, kind = kind.endswith("*"), kind.removesuffix("*")
            described = message.field.add(name=field, number=number)
            described.label = _REPEATED if repeats else _OPTIONAL
            if kind in _MESSAGES:
                described.type_name = f".{kind}"
            else:
                described.type = FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("Model"))


_Model = _model_class()
