"""A large embedding table lies beside the graphs, in a file that serving processes map.

Inside user.onnx and item.onnx, every process would have a copy of what each of them reads. As ONNX
external data onnxruntime maps it: all processes read the same pages, and the two graphs the same
rows where they share features (docs/decisions/0011).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from torch import nn

from bundle.encoding import Side
from model_export.models.inputs import EmbeddingTable

TABLE_FILE = "embeddings.bin"
LARGE_BYTES = 1 << 20
"""Smaller tables stay in the graphs: a file more gains nothing."""


def tables_of(model: object) -> list[EmbeddingTable]:
    """The model's embedding table, or none; `inputs.py` has all embeddings in one."""
    modules = model.modules() if isinstance(model, nn.Module) else ()
    return [each for each in modules if isinstance(each, EmbeddingTable)]


class TableFile:
    """A model's embedding table as float32 [rows, width], row after row, in a bundle's directory.

    Args:
        directory: of the bundle; the file is written.
    """

    def __init__(self, table: EmbeddingTable, directory: Path) -> None:
        self._ranges = table.ranges
        weight: npt.NDArray[np.float32] = table.weight.detach().numpy()
        self._rows = weight.astype("<f4", copy=False)
        self._directory = directory
        self._rows.tofile(directory / TABLE_FILE)

    def move_out_of(self, graph: ir.Graph, side: Side) -> None:
        """Let a side's graph read its rows from the file.

        Raises:
            LookupError: the graph does not gather from those rows.
        """
        start, stop = self._ranges[side]
        rows = self._rows[start:stop]
        held = [value for value in graph.initializers.values() if _holds(value, rows)]
        if not held:
            raise LookupError(f"{graph.name}: no initializer is the {side} side's embedding table")
        for value in held:
            value.const_value = ir.ExternalTensor(
                TABLE_FILE,
                offset=start * self._rows.strides[0],
                length=rows.nbytes,
                dtype=ir.DataType.FLOAT,
                shape=ir.Shape(rows.shape),
                name=value.name or "",
                base_dir=self._directory,
            )


def _holds(value: ir.Value, rows: npt.NDArray[np.float32]) -> bool:
    tensor = value.const_value
    return (
        tensor is not None
        and tuple(tensor.shape) == rows.shape
        and tensor.dtype == ir.DataType.FLOAT
        and np.array_equal(tensor.numpy(), rows)
    )
