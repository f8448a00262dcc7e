"""The first layers of a joint stage, as far as its manifest names them, computed in C.

A graph reads and writes the many numbers of the first layer four times: to repeat the user's, to
add, to cut and to rectify. Here an item's are read where they are kept. And a graph multiplies all
that ReLU has left, half of which is zero (docs/decisions/0044, 0048).
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from bundle.errors import GraphMismatch
from bundle.manifest import Mixtures, Part, Stage
from service.native.layers import Columns, Dense, Layers
from service.native.library import Kept, Places, Tensor
from service.native.mixtures import mix
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

    def __init__(self, stage: Stage, graph: bytes, threads: int = 1) -> None:
        ends = itertools.accumulate(stage.computed_ahead.values(), initial=0)
        self._columns = dict(zip(stage.computed_ahead, itertools.pairwise(ends), strict=True))
        known = constants(graph)
        self._layers = Layers([_columns(part, known, stage.file) for part in stage.first_layer])
        self._mixtures = _Mixtures(stage.mixtures, stage, known) if stage.mixtures else None
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
        parts = self._room("parts", rows * self._layers.out_width)
        found = parts
        if self._mixtures:
            found = self._room("mixtures", rows * self._mixtures.width)

        def compute(some: slice) -> None:
            room = self._room("work", self._layers.room)
            self._layers.compute(users, user_row, items, item_row, some, room, parts)
            if self._mixtures:
                self._mixtures.compute(parts, rows, some, found)

        pieces = min(self._threads, rows // _ROWS_OF_THREAD)
        if self._pool and pieces > 1:
            ends = [rows * number // pieces for number in range(pieces + 1)]
            list(self._pool.map(compute, itertools.starmap(slice, itertools.pairwise(ends))))
        else:
            compute(slice(0, rows))
        return {
            tensor: found[rows * start : rows * end].reshape(rows, end - start)
            for tensor, (start, end) in self._columns.items()
        }

    def _room(self, name: str, numbers: int) -> Tensor:
        """Memory of any content, the same for every call of a thread."""
        room: Tensor | None = getattr(self._of_thread, name, None)
        if room is None or len(room) < numbers:
            room = np.empty(numbers, np.float32)
            setattr(self._of_thread, name, room)
        return room


class _Mixtures:
    """What a stage's gates make of its parts.

    Attributes:
        width: of all mixtures together.
    """

    def __init__(self, mixtures: Mixtures, stage: Stage, known: Mapping[str, Tensor]) -> None:
        self._gates, self._experts = len(mixtures.tensors), len(stage.first_layer) - 1
        self._of_expert = stage.first_layer[0].out_width
        self.width = self._gates * self._of_expert
        self._mask = None
        if mixtures.mask is not None:
            shape = (self._gates, self._experts)
            self._mask = _constant(known, mixtures.mask, shape, stage.file)

    def compute(self, parts: Tensor, rows: int, some: slice, out: Tensor) -> None:
        """Mixtures of some of N rows, one after the other in `out`, each [N, H].

        Args:
            parts: as `Layers` leaves them: experts float32 [E, N, H], then logits [N, G * E].
        """
        gates, experts, width = self._gates, self._experts, self._of_expert
        end = experts * rows * width
        mix(
            parts[end : end + rows * gates * experts].reshape(rows, gates, experts),
            self._mask,
            parts[:end].reshape(experts, rows, width),
            some,
            out[: gates * rows * width].reshape(gates, rows, width),
        )


def _columns(part: Part, known: Mapping[str, Tensor], file: str) -> Columns:
    inputs, layers = part.width, []
    for layer in part.layers:
        weight = _constant(known, layer.weight, (layer.width, inputs), file)
        bias = np.zeros(layer.width, np.float32)
        if layer.bias is not None:
            bias = _constant(known, layer.bias, (layer.width,), file)
        layers.append(Dense(weight, bias))
        inputs = layer.width
    return Columns(part.width, part.relu, tuple(layers))


def _constant(known: Mapping[str, Tensor], name: str, shape: tuple[int, ...], file: str) -> Tensor:
    found = known.get(name)
    if found is None or found.shape != shape:
        has = "has none" if found is None else f"has it as {list(found.shape)}"
        raise GraphMismatch(
            f"{file}: the manifest promises a constant {name}, float32 {list(shape)}, in the file "
            f"itself; the graph {has}"
        )
    return found
