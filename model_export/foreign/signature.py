"""What a graph takes and gives: names, element types and shapes, and whether a spec fits them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from bundle.encoding import IdColumns, NumberColumns, Side, side_layout
from bundle.schema import DenseVector, Feature, Number
from model_export.foreign.spec import Specification, SpecTask, nearest

_FED_TYPES = {"float32", "float64", "float16", "int32", "int64"}
_FLOATS = {"float32", "float64", "float16"}


@dataclass(frozen=True)
class Value:
    """One input or output of a graph.

    Attributes:
        type: numpy's name of its element type, or what it is instead of a tensor.
        shape: a number, or a name where any number may stand; None when the graph does not say.
    """

    name: str
    type: str
    shape: tuple[int | str, ...] | None

    def __str__(self) -> str:
        shape = "?" if self.shape is None else ", ".join(map(str, self.shape))
        return f"{self.name} {self.type} [{shape}]"

    @property
    def width(self) -> int | None:
        """The number of columns, where the graph says it."""
        if self.shape is None:
            return None
        if len(self.shape) == 1:
            return 1
        last = self.shape[-1]
        return last if isinstance(last, int) else None


@dataclass(frozen=True)
class Block:
    """Neighbouring columns of one of the two matrices of a side that go into one input alike.

    Attributes:
        matrix: ids or numbers. columns: of that matrix.
        features: whose columns they are.
    """

    side: Side
    matrix: str
    columns: npt.NDArray[np.int64]
    features: tuple[str, ...]


@dataclass(frozen=True)
class Signature:
    """All inputs and outputs of a graph."""

    inputs: Mapping[str, Value]
    outputs: Mapping[str, Value]

    @classmethod
    def of(cls, model: onnx.ModelProto) -> Signature:
        """Read a graph; an input that has an initializer is no input."""
        constants = {each.name for each in model.graph.initializer}
        inputs = [_value(each) for each in model.graph.input if each.name not in constants]
        outputs = [_value(each) for each in model.graph.output]
        return cls({v.name: v for v in inputs}, {v.name: v for v in outputs})

    def check(self, specification: Specification) -> None:
        """Hold a specification against the graph.

        Raises:
            SpecInvalid: an input or output that is not there, is not fed, or cannot be; names it
                and says what the graph has.
        """
        declared = specification.spec.inputs
        for name in declared:
            if name not in self.inputs:
                has = _listed(self.inputs)
                raise specification.error(
                    f"inputs.{name}",
                    f"the graph has no such input{nearest(name, self.inputs)}; it takes {has}",
                )
        for name, value in self.inputs.items():
            if name not in declared:
                raise specification.error("inputs", f"nothing feeds the graph's input {value}")
        for value in self.inputs.values():
            self._check_input(specification, value)
        for task in specification.spec.tasks:
            self._check_task(specification, task)

    def _check_input(self, specification: Specification, value: Value) -> None:
        field = f"inputs.{value.name}"
        if value.type not in _FED_TYPES:
            raise specification.error(
                field, f"the graph's input {value}: only {', '.join(sorted(_FED_TYPES))} can be fed"
            )
        if value.shape is None or len(value.shape) not in (1, 2):
            raise specification.error(
                field, f"the graph's input {value}: only [rows] and [rows, columns] can be fed"
            )
        if isinstance(value.shape[0], int):
            raise specification.error(
                field,
                f"the graph's input {value} takes {value.shape[0]} rows and no other number; "
                "export the graph with a dynamic first axis",
            )
        keys = specification.spec.inputs[value.name]
        features = [_feature(specification, key) for key in keys]
        if value.type not in _FLOATS:
            for feature in features:
                if isinstance(feature, Number | DenseVector):
                    raise specification.error(
                        field,
                        f"{feature.key} is a {feature.kind}, the graph's input {value} takes whole "
                        "numbers; declare it as categorical with a vocabulary {from: .., to: ..}",
                    )
        found = sum(len(block.columns) for block in blocks(specification, value.name))
        if value.width is not None and found != value.width:
            widths = ", ".join(f"{key} {width(specification, key)}" for key in keys)
            raise specification.error(
                field, f"{found} columns ({widths}) for the graph's input {value}"
            )

    def _check_task(self, specification: Specification, task: SpecTask) -> None:
        field = f"tasks.{task.name}"
        value = self.output_of(specification, task)
        if value.type not in _FLOATS:
            labels = "; class labels are no scores" if "int" in value.type else ""
            maps = "; convert without a ZipMap" if value.type in ("sequence", "map") else ""
            raise specification.error(
                f"{field}.output",
                f"the graph's output {value}: a score is a floating-point number{labels}{maps}; "
                f"it gives {_listed(self.outputs)}",
            )
        if value.shape is not None and len(value.shape) not in (1, 2):
            raise specification.error(
                f"{field}.output", f"the graph's output {value}: not [rows] or [rows, columns]"
            )
        if task.column is None and value.width != 1:
            raise specification.error(
                f"{field}.column", f"say which column of the graph's output {value} it is"
            )
        if value.width is not None and (task.column or 0) >= value.width:
            raise specification.error(
                f"{field}.column", f"no column {task.column} in the graph's output {value}"
            )

    def output_of(self, specification: Specification, task: SpecTask) -> Value:
        """The output that a task's score comes from."""
        field = f"tasks.{task.name}.output"
        if task.output is None:
            if len(self.outputs) > 1:
                raise specification.error(
                    field, f"name one of the graph's outputs: {_listed(self.outputs)}"
                )
            return next(iter(self.outputs.values()))
        if task.output not in self.outputs:
            raise specification.error(
                field,
                f"the graph has no output {task.output}{nearest(task.output, self.outputs)}; it "
                f"gives {_listed(self.outputs)}",
            )
        return self.outputs[task.output]


def blocks(specification: Specification, name: str) -> list[Block]:
    """The columns that feed an input, as few blocks as their order allows."""
    found: list[Block] = []
    for key in specification.spec.inputs[name]:
        block = _block(specification, key)
        last = found[-1] if found else None
        if (
            last is not None
            and (last.side, last.matrix) == (block.side, block.matrix)
            and specification.indices[last.features[0]] == specification.indices[key]
        ):
            columns = np.concatenate((last.columns, block.columns))
            found[-1] = Block(block.side, block.matrix, columns, (*last.features, key))
        else:
            found.append(block)
    return found


def width(specification: Specification, key: str) -> int:
    """How many columns a feature has."""
    return len(_block(specification, key).columns)


def _block(specification: Specification, key: str) -> Block:
    feature = _feature(specification, key)
    side: Side = "item" if feature.entity == "item" else "user"
    layout = side_layout(specification.features, side)
    matrix = "numbers" if isinstance(feature, Number | DenseVector) else "ids"
    both: tuple[IdColumns | NumberColumns, ...] = (*layout.id_columns, *layout.number_columns)
    columns = next(each for each in both if each.feature.key == key)
    span = np.arange(columns.start, columns.start + columns.width, dtype=np.int64)
    return Block(side, matrix, span, (key,))


def _feature(specification: Specification, key: str) -> Feature:
    return next(each for each in specification.features.features if each.key == key)


def _listed(values: Mapping[str, Value]) -> str:
    return ", ".join(map(str, values.values()))


def _value(info: onnx.ValueInfoProto) -> Value:
    kind = info.type.WhichOneof("value") or "unknown"
    if kind != "tensor_type":
        return Value(info.name, kind.removesuffix("_type"), None)
    tensor = info.type.tensor_type
    if tensor.elem_type in (onnx.TensorProto.STRING, onnx.TensorProto.UNDEFINED):
        type_name = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
    else:
        type_name = helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    if not tensor.HasField("shape"):
        return Value(info.name, type_name, None)
    shape = tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?"
        for dim in tensor.shape.dim
    )
    return Value(info.name, type_name, shape)
