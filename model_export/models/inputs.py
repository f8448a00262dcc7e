"""Input layers: the columns of the two sides -> input vectors.

All embeddings have one width and lie in one table. Its rows are ordered by which side reads them
(user only, both, item only), so that a side's part is one slice of it and one gather reads it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from bundle.encoding import IdColumns, Side, side_layout
from bundle.schema import PADDING_INDEX, FeatureSchema

_SIDES: tuple[Side, ...] = ("user", "item")
_INITIAL_DEVIATION = 0.05


class EmbeddingTable(nn.Module):
    """The one embedding table of a model, float32 [rows, width].

    Attributes:
        starts: embedding table key (see `bundle.encoding.IdColumns.table`) -> its first row.
        ranges: the rows [start, stop) that each side reads.
    """

    def __init__(self, schema: FeatureSchema, width: int) -> None:
        super().__init__()
        rows = {
            columns.table: schema.table_rows(columns.feature)
            for side in ("user", "item")
            for columns in side_layout(schema, side).id_columns
        }
        read = {side: {c.table for c in side_layout(schema, side).id_columns} for side in _SIDES}
        both = read["user"] & read["item"]
        order = sorted(rows, key=lambda key: (key in read["item"]) + (key not in read["user"]))
        self.starts: dict[str, int] = {}
        total = 0
        for table in order:
            self.starts[table] = total
            total += rows[table]
        user_only = sum(rows[table] for table in read["user"] - both)
        item_only = sum(rows[table] for table in read["item"] - both)
        self.ranges: dict[Side, tuple[int, int]] = {
            "user": (0, total - item_only),
            "item": (user_only, total),
        }
        self.weight = nn.Parameter(_INITIAL_DEVIATION * torch.randn(total, width))

    def part(self, side: Side) -> torch.Tensor:
        """The rows that `side` reads."""
        start, stop = self.ranges[side]
        return self.weight[start:stop]


class SideInputs(nn.Module):
    """The input vector of one side: embeddings of its F id features, then its numbers.

    An id list is pooled by the mean of its ids; an empty one gives zeros. Single ids are lists of
    length one, so that one gather and one product serve all: with S [F, K] saying which column
    belongs to which feature, and the mask m of columns that are not padding,

        pooled = S (m * embedded) / max(S m, 1)
    """

    offsets: torch.Tensor
    belongs: torch.Tensor

    def __init__(self, schema: FeatureSchema, side: Side, table: EmbeddingTable) -> None:
        super().__init__()
        layout = side_layout(schema, side)
        self.side: Side = side
        self.width = len(layout.id_columns) * table.weight.shape[1] + layout.number_width
        self.has_ids = layout.id_width > 0
        self.has_numbers = layout.number_width > 0
        offsets = np.zeros(layout.id_width, np.int32)
        belongs = np.zeros((len(layout.id_columns), layout.id_width), np.float32)
        for feature, columns in enumerate(layout.id_columns):
            span = _span(columns)
            offsets[span] = table.starts[columns.table] - table.ranges[side][0]
            belongs[feature, span] = 1.0
        self.register_buffer("offsets", torch.from_numpy(offsets), persistent=False)
        self.register_buffer("belongs", torch.from_numpy(belongs), persistent=False)

    def forward(
        self, ids: torch.Tensor, numbers: torch.Tensor, table: torch.Tensor
    ) -> torch.Tensor:
        """ids int32 [R, K], numbers float32 [R, M] -> float32 [R, width]."""
        if not self.has_ids:
            return numbers
        embedded = nn.functional.embedding(ids + self.offsets, table)
        mask = (ids != PADDING_INDEX).to(embedded.dtype)
        lengths = torch.matmul(mask, self.belongs.T).clamp(min=1.0)
        pooled = torch.matmul(self.belongs, embedded * mask.unsqueeze(-1)) / lengths.unsqueeze(-1)
        embeddings = pooled.flatten(1)
        return torch.cat((embeddings, numbers), dim=1) if self.has_numbers else embeddings


def _span(columns: IdColumns) -> slice:
    return slice(columns.start, columns.start + columns.width)
