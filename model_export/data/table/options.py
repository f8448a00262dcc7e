"""What a configuration says of a user's own table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from model_export.data.random_split import RandomSplit
from model_export.data.split import TimeSplit


class ColumnTimeSplit(TimeSplit):
    """Consecutive periods by a column of numbers, timestamps, dates, or ISO 8601 text."""

    by: Literal["time"]
    column: str


class TableOptions(BaseModel):
    """One table, a candidate row a line: features, and what came of it.

    Features and tasks say which columns are read: a feature reads the column of its name, a task
    that of its `label`, and of its `where`.

    Attributes:
        files: Parquet or CSV (`.csv`, `.csv.gz`) with one header; several are read one after the
            other, a directory stands for the Parquet files in it.
        columns: feature key, such as `user.age`, -> its column, where the names differ.
        list_separator: between the entries of a list in a CSV; an empty cell is "no value".
        user, item: id columns; GAUC is taken per user, and the bundle gets a sample of each.
        impression: column of what was shown together: NDCG is taken within it.
        position: column of the place at which a row was shown, from 0 at the top.
        split: at random, or by the time in a column.
        streaming: read Parquet anew in each epoch, a row group at a time, instead of keeping all
            rows in memory. Row groups come in random order, rows are shuffled within them.
        workers: processes that read and encode ahead when streaming.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    loader: Literal["table"]
    files: Annotated[tuple[Path, ...], Field(min_length=1)] | Path
    columns: dict[str, str] = {}
    list_separator: Annotated[str, Field(min_length=1)] = "|"
    user: str | None = None
    item: str | None = None
    impression: str | None = None
    position: str | None = None
    split: Annotated[RandomSplit | ColumnTimeSplit, Field(discriminator="by")] = RandomSplit()
    streaming: bool = False
    workers: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _workers_stream(self) -> Self:
        if self.workers and not self.streaming:
            raise ValueError("workers: read ahead only with streaming: true")
        return self
