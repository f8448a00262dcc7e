"""The first layers of a joint stage, as far as its manifest names them, computed in C.

A graph reads and writes the many numbers of the first layer four times: to repeat the user's, to
add, to cut and to rectify. Here an item's are read where they are kept. And a graph multiplies all
that ReLU has left, half of which is zero (docs/decisions/0044, 0048, 0049).
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from bundle import stages
from bundle.errors import GraphMismatch
from service.native.layers import Branch, Columns, Dense, Gates, Layers, Level
from service.native.library import Kept, Places, Tensor
from service.scoring.graph_cut import constants

_ROWS_OF_THREAD = 64
"""For fewer, another thread costs more than it gives."""


class FirstLayers:
    """Computes the tensors from which the rest of a joint graph follows; from any thread.

    Args:
        stage: one whose manifest names the parts of its first layer.
        graph: content of its file.
        threads: at once, in one call.

    Attributes:
        width: of item tensors, P.

    Raises:
        GraphMismatch: a constant that the manifest names is not in the graph.
    """

    def __init__(self, stage: stages.Stage, graph: bytes, threads: int = 1) -> None:
        known = _Constants(stage.file, constants(graph))
        self._layers = Layers(list(_levels(stage, known)))
        ends = itertools.accumulate(stage.computed_ahead.values(), initial=0)
        self._tensors = dict(zip(stage.computed_ahead, itertools.pairwise(ends), strict=True))
        self.width = self._layers.width
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, "first-layers") if threads > 1 else None
        self._of_thread = threading.local()

    def compute(
        self, users: Tensor, user_row: Places, items: Kept, item_row: Places
    ) -> dict[str, Tensor]:
        """Tensors of the graph for N candidates, by name: float32 [N, width].

        They are good until the thread's next call.

        Args:
            users: float32 [U, P]. user_row: int64 [N], each in [0, U).
            items: float32 or float16 [I, P]. item_row: int64 [N], each in [0, I).

        Raises:
            ValueError: an array is not of that type or shape, or does not lie in one piece.
            IndexError: a row is out of range.
        """
        rows = len(user_row)
        out = self._memory("out", rows * self._layers.out_width)

        def compute(some: slice) -> None:
            room = self._memory("room", self._layers.room)
            self._layers.compute(users, user_row, items, item_row, some, room, out)

        pieces = min(self._threads, rows // _ROWS_OF_THREAD)
        if self._pool and pieces > 1:
            ends = [rows * number // pieces for number in range(pieces + 1)]
            list(self._pool.map(compute, itertools.starmap(slice, itertools.pairwise(ends))))
        else:
            compute(slice(0, rows))
        return {
            tensor: out[rows * start : rows * end].reshape(rows, end - start)
            for tensor, (start, end) in self._tensors.items()
        }

    def _memory(self, name: str, numbers: int) -> Tensor:
        """Some of any content, the same for every call of a thread."""
        memory: Tensor | None = getattr(self._of_thread, name, None)
        if memory is None or len(memory) < numbers:
            memory = np.empty(numbers, np.float32)
            setattr(self._of_thread, name, memory)
        return memory[:numbers]


def _levels(stage: stages.Stage, known: _Constants) -> Iterator[Level]:
    """The levels that a stage's manifest names, from the first layer on."""
    parts = [known.columns(part) for part in stage.first_layer]
    if stage.mixtures is None:
        yield Level(parts)
        return
    yield Level(parts, known.gates(stage.mixtures, len(parts) - 1))
    width = stage.first_layer[0].out_width
    for level in stage.levels:
        branches = [known.branch(each, width, relu=True) for each in level.experts]
        branches += [known.branch(each, width, relu=False) for each in level.gates]
        yield Level(branches, known.gates(level.mixtures, len(level.experts)))
        width = level.experts[0].out_width


class _Constants:
    """The constants of a graph, as a manifest names them.

    Args:
        file: whose they are.
    """

    def __init__(self, file: str, known: Mapping[str, Tensor]) -> None:
        self._file = file
        self._known = known

    def columns(self, part: stages.Part) -> Columns:
        return Columns(part.width, part.relu, self._layers(part.layers, part.width))

    def branch(self, branch: stages.Branch, inputs: int, relu: bool) -> Branch:
        return Branch(branch.stream, self._layers(branch.layers, inputs, relu))

    def gates(self, mixtures: stages.Mixtures, experts: int) -> Gates:
        number = len(mixtures.tensors)
        mask = None if mixtures.mask is None else self._get(mixtures.mask, (number, experts))
        return Gates(number, experts, mask)

    def _layers(
        self, layers: Sequence[stages.Dense], inputs: int, relu: bool = True
    ) -> tuple[Dense, ...]:
        found = []
        for layer in layers:
            weight = self._get(layer.weight, (layer.width, inputs))
            bias = np.zeros(layer.width, np.float32)
            if layer.bias is not None:
                bias = self._get(layer.bias, (layer.width,))
            found.append(Dense(weight, bias, relu))
            inputs = layer.width
        return tuple(found)

    def _get(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """A constant.

        Raises:
            GraphMismatch: there is none, or none of that shape.
        """
        found = self._known.get(name)
        if found is None or found.shape != shape:
            has = "has none" if found is None else f"has it as {list(found.shape)}"
            raise GraphMismatch(
                f"{self._file}: the manifest promises a constant {name}, float32 {list(shape)}, in "
                f"the file itself; the graph {has}"
            )
        return found
