"""Streamed rows: encoded chunk after chunk, ahead of training in worker processes if there are any.

What comes out does not depend on the number of workers: a chunk is read and encoded by one of them,
and the chunks arrive in the order that was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset

from bundle.encoding import Encoder
from model_export.data.encoded import EncodedSet, encode
from model_export.data.table.loader import TablePart
from model_export.data.tasks import TaskDeclaration
from model_export.errors import DataInvalid


@dataclass(frozen=True)
class _Chunks(Dataset["EncodedSet | str"]):
    """Chunk number -> the chunk, encoded; or what is wrong with it, to be raised by the reader."""

    part: TablePart
    tasks: Sequence[TaskDeclaration]
    encoder: Encoder

    def __getitem__(self, number: int) -> EncodedSet | str:
        try:
            return encode(self.part.chunk(number), self.tasks, self.encoder)
        except DataInvalid as error:
            return str(error)


class StreamedRows:
    """One part of a table that is read and encoded anew each time.

    Args:
        part: raw rows. tasks, encoder: of the experiment.
        workers: processes that read ahead; this one alone when 0.
    """

    def __init__(
        self, part: TablePart, tasks: Sequence[TaskDeclaration], encoder: Encoder, workers: int
    ) -> None:
        self._rows = len(part)
        self._order: list[int] = []
        self._in_order = list(range(len(part.groups)))
        self._loader = DataLoader(
            _Chunks(part, tasks, encoder),
            batch_size=None,
            sampler=self._order,  # read anew at each start
            num_workers=workers,
            collate_fn=_as_it_is,
            multiprocessing_context="spawn" if workers else None,
            persistent_workers=workers > 0,
        )

    def __len__(self) -> int:
        return self._rows

    def chunks(self, rng: np.random.Generator | None = None) -> Iterator[EncodedSet]:
        """All rows, a row group at a time; the groups in random order if there is a generator.

        Raises:
            DataInvalid: a value is wrong; names file, row and column.
        """
        order = self._in_order if rng is None else rng.permutation(len(self._in_order)).tolist()
        self._order[:] = order
        for chunk in self._loader:
            if isinstance(chunk, str):
                raise DataInvalid(chunk)
            yield chunk


def _as_it_is(chunk: Any) -> Any:
    return chunk
