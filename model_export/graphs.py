"""The stages of a network as ONNX graphs."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import onnx
import onnx_ir as ir
import torch
from onnxscript import optimizer
from torch import nn
from torch.export import Dim

from bundle.encoding import Side, side_layout
from bundle.schema import FeatureSchema
from bundle.stages import SingleStage, Stage, Stages
from model_export.first_layers import first_layers
from model_export.models.base import MultiTaskModel
from model_export.stages import Network, OneStage, ThreeStages
from model_export.tables import LARGE_BYTES, TableFile, tables_of

OPSET = 20
_ANY_SIZE = 1 << 40
# Sizes of the example that is traced. Larger than one, which the exporter would take for constant.
_USERS, _ITEMS, _ROWS = 3, 4, 5


def export_stages(model: Network, schema: FeatureSchema, directory: Path) -> Stages | SingleStage:
    """Write user.onnx, item.onnx and joint.onnx, or single.onnx for a network of one stage.

    Beside the three, a large embedding table (`tables.py`).

    Every number of users, items and rows may be given at run time. An input without columns is
    left out of its graph and not listed in the stage.
    """
    model.eval()
    if isinstance(model, OneStage):
        return _export_single(model, schema, directory)
    if isinstance(model, MultiTaskModel):
        model = model.for_serving()
    large = (table for table in tables_of(model) if table.weight.nbytes >= LARGE_BYTES)
    table = next((TableFile(each, directory) for each in large), None)
    user_inputs, user_tensor = _export_side(model, schema, "user", _USERS, directory, table)
    item_inputs, item_tensor = _export_side(model, schema, "item", _ITEMS, directory, table)
    joint_items = item_tensor.new_zeros(_ROWS, item_tensor.shape[1])
    user_row = torch.zeros(_ROWS, dtype=torch.int64)
    users, rows = Dim("users"), Dim("rows")
    with torch.inference_mode():
        scores = model.joint_stage(user_tensor, joint_items, user_row)
    inputs = {"user_tensor": user_tensor, "item_tensor": joint_items, "user_row": user_row}
    joint = export_graph(
        _JointGraph(model),
        inputs,
        {"user_tensor": {0: users}, "item_tensor": {0: rows}, "user_row": {0: rows}},
        "task_scores",
        directory / "joint.onnx",
    )
    stage = _stage("joint", tuple(inputs), "task_scores", scores)
    return Stages(
        user=_stage("user", user_inputs, "user_tensor", user_tensor),
        item=_stage("item", item_inputs, "item_tensor", item_tensor),
        joint=stage.model_copy(update=first_layers(joint)._asdict()),
    )


class _SideGraph(nn.Module):
    """The user or the item stage, with only those inputs that have columns."""

    def __init__(self, model: ThreeStages, side: Side, has_ids: bool, has_numbers: bool) -> None:
        super().__init__()
        self.model = model
        self.side = side
        self.has_ids = has_ids
        self.has_numbers = has_numbers

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        # A stage does not touch an input that has no columns: any tensor stands for it.
        ids = inputs[0] if self.has_ids else torch.empty(0, 0, dtype=torch.int32)
        numbers = inputs[-1] if self.has_numbers else torch.empty(0, 0)
        stage = self.model.user_stage if self.side == "user" else self.model.item_stage
        return stage(ids, numbers)


class _JointGraph(nn.Module):
    def __init__(self, model: ThreeStages) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, user_tensor: torch.Tensor, item_tensor: torch.Tensor, user_row: torch.Tensor
    ) -> torch.Tensor:
        return self.model.joint_stage(user_tensor, item_tensor, user_row)


class _SingleGraph(nn.Module):
    """The single stage, with only those inputs that have columns."""

    def __init__(self, model: OneStage, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        # The stage does not touch an input that has no columns: any tensor stands for it.
        given = dict(zip(self.names, inputs, strict=True))
        for side in ("user", "item"):
            given.setdefault(f"{side}_ids", torch.empty(0, 0, dtype=torch.int32))
            given.setdefault(f"{side}_numbers", torch.empty(0, 0))
        return self.model.single_stage(
            given["user_ids"],
            given["user_numbers"],
            given["item_ids"],
            given["item_numbers"],
            given["user_row"],
        )


def _export_single(model: OneStage, schema: FeatureSchema, directory: Path) -> SingleStage:
    example: dict[str, torch.Tensor] = {}
    shapes: list[dict[int, object]] = []
    sides: tuple[tuple[Side, int, str], ...] = (("user", _USERS, "users"), ("item", _ROWS, "rows"))
    dimensions = {name: Dim(name) for _, _, name in sides}
    for side, rows, dimension in sides:
        columns = _side_example(schema, side, rows)
        example |= {f"{side}_{name}": values for name, values in columns.items()}
        shapes += [{0: dimensions[dimension]}] * len(columns)
    example["user_row"] = torch.zeros(_ROWS, dtype=torch.int64)
    shapes.append({0: dimensions["rows"]})
    graph = _SingleGraph(model, tuple(example))
    path = directory / "single.onnx"
    export_graph(graph, example, {"inputs": tuple(shapes)}, "task_scores", path)
    with torch.inference_mode():
        scores = graph(*example.values())
    return SingleStage(single=_stage("single", tuple(example), "task_scores", scores))


def _side_example(schema: FeatureSchema, side: Side, rows: int) -> dict[str, torch.Tensor]:
    layout = side_layout(schema, side)
    example: dict[str, torch.Tensor] = {}
    if layout.id_width:
        example["ids"] = torch.ones(rows, layout.id_width, dtype=torch.int32)
    if layout.number_width:
        example["numbers"] = torch.zeros(rows, layout.number_width)
    return example


def _export_side(
    model: ThreeStages,
    schema: FeatureSchema,
    side: Side,
    rows: int,
    directory: Path,
    table: TableFile | None,
) -> tuple[tuple[str, ...], torch.Tensor]:
    example = _side_example(schema, side, rows)
    graph = _SideGraph(model, side, "ids" in example, "numbers" in example)
    dimension = Dim("users" if side == "user" else "items")
    export_graph(
        graph,
        example,
        {"inputs": tuple({0: dimension} for _ in example)},
        f"{side}_tensor",
        directory / f"{side}.onnx",
        partial(table.move_out_of, side=side) if table and "ids" in example else None,
    )
    with torch.inference_mode():
        return tuple(example), graph(*example.values())


def export_graph(
    graph: nn.Module,
    example: dict[str, torch.Tensor],
    dynamic_shapes: dict[str, object],
    output: str,
    path: Path,
    change: Callable[[ir.Graph], None] | None = None,
) -> ir.Graph:
    """Write a network as one ONNX graph; returns it as written.

    Args:
        change: what else is to be done to the graph before it is written.
    """
    with _quiet():
        program = torch.onnx.export(
            graph.eval(),
            tuple(example.values()),
            input_names=list(example),
            output_names=[output],
            dynamic_shapes=dynamic_shapes,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # by dynamo=True
    # Slices and sums of weights become weights: nothing constant is left to run time.
    optimizer.optimize_ir(program.model, input_size_limit=_ANY_SIZE, output_size_limit=_ANY_SIZE)
    if change is not None:
        change(program.model.graph)
    ir.save(program.model, path)
    onnx.checker.check_model(str(path), full_check=True)
    return program.model.graph


def _stage(name: str, inputs: tuple[str, ...], output: str, tensor: torch.Tensor) -> Stage:
    return Stage(
        file=f"{name}.onnx", inputs=inputs, output=output, output_width=int(tensor.shape[1])
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what the exporter prints and warns of; what it raises comes through."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
