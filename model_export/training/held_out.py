"""What a network scores rows that it was not trained on, beside what happened: Parquet files.

validation.parquet, test.parquet: a row for each candidate, in the order of the data

    list, group      int64: the impression, the person
    score.<task>     float32: the score as the network gives it, before any calibration
    label.<task>     float32: what happened; null where the task is not defined
    item.<feature>   float64: every number of the schema, defaults filled in; user and context too
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from bundle.encoding import Encoder
from bundle.schema import Bucketised, Number
from model_export.data.encoded import pack
from model_export.data.fit import FittedFeatures
from model_export.data.impressions import Impressions, Part
from model_export.errors import RunUnusable
from model_export.training.evaluation import Predictions

PartName = Literal["validation", "test"]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class HeldOut:
    """One part."""

    table: pa.Table

    @classmethod
    def of(
        cls,
        predictions: Predictions,
        tasks: Sequence[str],
        part: Part,
        features: FittedFeatures,
    ) -> Self:
        """The part `part`, and what was predicted for it."""
        columns: dict[str, pa.Array] = {
            "list": pa.array(predictions.lists),
            "group": pa.array(predictions.groups),
        }
        for place, task in enumerate(tasks):
            columns[f"score.{task}"] = pa.array(predictions.scores[:, place])
            undefined = ~predictions.masks[:, place]
            columns[f"label.{task}"] = pa.array(predictions.labels[:, place], mask=undefined)
        for name, values in _numbers(part, features).items():
            columns[name] = pa.array(values)
        return cls(pa.table(columns))

    @classmethod
    def read(cls, run: Path, part: PartName) -> Self:
        """Read a part of a run back.

        Raises:
            RunUnusable: the run has none.
        """
        file = run / f"{part}.parquet"
        try:
            return cls(pq.read_table(file))
        except FileNotFoundError as error:
            raise RunUnusable(f"{file}: not there; train again") from error

    def write(self, run: Path, part: PartName) -> None:
        """Write the part into a run directory."""
        pq.write_table(self.table, run / f"{part}.parquet")

    def defined(self, task: str) -> tuple[Floats, Floats]:
        """Scores and labels of the rows on which a task is defined, both float32 [rows]."""
        labels = self.table.column(f"label.{task}")
        rows = labels.is_valid().to_numpy()
        scores = self.table.column(f"score.{task}").to_numpy()
        return scores[rows], labels.drop_null().to_numpy()


def _numbers(part: Part, features: FittedFeatures) -> dict[str, npt.NDArray[np.float64]]:
    encoder = features.encoder()
    chunks = [_of_chunk(chunk, features, encoder) for chunk in part.chunks()]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def _of_chunk(
    chunk: Impressions, features: FittedFeatures, encoder: Encoder
) -> dict[str, npt.NDArray[np.float64]]:
    found = {}
    for feature in features.schema.features:
        if isinstance(feature, Number | Bucketised):
            rows = chunk.item_row if feature.entity == "item" else chunk.user_row
            packed = pack(chunk, feature.entity, encoder)
            found[feature.key] = encoder.raw_number(feature.entity, feature.name, packed)[rows]
    return found
