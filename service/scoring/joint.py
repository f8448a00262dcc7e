"""The joint stage of one version: every candidate of its user, in blocks of rows.

A block is as many rows as keep their numbers close to a core: its layers find in the second-level
cache what the one before has left there (docs/decisions/0041, 0044, 0048).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bundle.errors import GraphMismatch
from bundle.stages import Stage
from service.native.library import Places, Tensor
from service.scoring.first_layers import FirstLayers
from service.scoring.item_cache import ItemTensors, located
from service.scoring.runs import Array, Runs
from service.scoring.session import Session
from service.values import Scores

_BLOCK_BYTES = 1 << 20
"""Item tensors that a graph reads at a time, for each thread."""
_AHEAD_BYTES = 2 << 20
"""... and tensors that were computed ahead of it, which leaves the graph half to do, or less."""


class Joint:
    """Runs the joint stage; from any thread.

    Args:
        path: of its graph. stage: as the manifest has it.
        width: numbers in an item tensor, P'.
        threads: inside one run.
        runs: sees to it that they end.

    Raises:
        GraphInvalid: onnxruntime cannot open the graph, or it is not as the manifest has it.
        Ended: opening it took too long.
    """

    def __init__(self, path: Path, stage: Stage, width: int, threads: int, runs: Runs) -> None:
        self._session = Session(path, stage, threads, runs)
        self._first: FirstLayers | None = None
        if stage.first_layer:
            self._first = FirstLayers(stage, path.read_bytes(), threads)
        if self._first and self._first.width != width:
            raise GraphMismatch(
                f"{path.name}: the parts of its first layer are {self._first.width} wide, item "
                f"tensors {width}"
            )
        block, read = _BLOCK_BYTES, width
        if self._first:
            block, read = _AHEAD_BYTES, sum(stage.computed_ahead.values())
        self._most_rows = max(threads * block // (4 * read), 1)

    def scores(self, user_tensor: Tensor, item_tensors: ItemTensors, user_row: Places) -> Scores:
        """Task scores float32 [N, T].

        Args:
            user_tensor: [U, P]. item_tensors: [N, P']. user_row: [N], each in [0, U).
        """
        count = max(-(-len(user_row) // self._most_rows), 1)
        ends = [len(user_row) * number // count for number in range(count + 1)]
        blocks = [slice(*block) for block in itertools.pairwise(ends)]
        scores = [
            self._session.run(self._block(user_tensor, item_tensors, user_row, block))
            for block in blocks
        ]
        return scores[0] if count == 1 else np.concatenate(scores)

    def _block(
        self, user_tensor: Tensor, item_tensors: ItemTensors, user_row: Places, block: slice
    ) -> Mapping[str, Array]:
        """What the graph reads for some rows."""
        if self._first is None:
            tensors = {"user_tensor": user_tensor, "item_tensor": item_tensors[block]}
            return {**tensors, "user_row": user_row[block]}
        items, item_row = located(item_tensors, block)
        return self._first.compute(user_tensor, user_row[block], items, item_row)
