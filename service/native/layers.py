"""The first layers of a joint stage, and the levels above it, by `layers.c`.

    sums = users[user_row] + items[item_row], cut into parts     a part: columns, rectified or not
    part = max(part W^T + b, 0), for each of its layers
    mixture = sum_e softmax(logits + mask)_e part_e, for each gate
    ... and so on, from the mixtures, level by level

An item's numbers are read where they are kept. A product leaves out the inputs that are zero, which
is what ReLU makes of half of them: it adds up the rows of W^T that the others name
(docs/decisions/0048, 0049). A level above reads mixtures, of which nothing is zero. An expert whose
weight is zero is left out, whatever it says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.native import library
from service.native.library import Kept, Places, Tensor, address, function, kind

_LANES = 16
_LINE = 64
_layers = function("layers", "ppnppnpnnnnnppn", lets_go=True)
_layers_room = function("layers_room", "p", lets_go=False)


@dataclass(frozen=True)
class Dense:
    """A layer max(x W^T + b, 0), or x W^T + b.

    Attributes:
        weight: W, float32 [outputs, inputs]. bias: b, float32 [outputs].
        relu: whether what comes out is rectified, max(x, 0); NaN stays.
    """

    weight: Tensor
    bias: Tensor
    relu: bool = True


@dataclass(frozen=True)
class Columns:
    """A part of a sum: some columns, and the layers that they go through.

    Attributes:
        relu: whether the columns are rectified. Before a layer they are.
    """

    width: int
    relu: bool
    layers: tuple[Dense, ...] = ()

    @property
    def out_width(self) -> int:
        """Of what comes of them."""
        return len(self.layers[-1].weight) if self.layers else self.width


@dataclass(frozen=True)
class Branch:
    """What reads a mixture of the level below: one layer or more.

    Attributes:
        stream: the mixture's number.
    """

    stream: int
    layers: tuple[Dense, ...]

    @property
    def out_width(self) -> int:
        """Of what comes of them."""
        return len(self.layers[-1].weight)


@dataclass(frozen=True)
class Gates:
    """Softmax mixtures of the first parts of a level; the other parts are the gates' logits.

    Attributes:
        number: of gates, G. experts: of parts that they mix, E.
        mask: float32 [G, E], added to the logits, or None.
    """

    number: int
    experts: int
    mask: Tensor | None


@dataclass(frozen=True)
class Level:
    """Parts, and what gates make of them.

    Attributes:
        parts: columns of the sum, at the first level; branches at those above.
        gates: at every level that another one reads. Their logits, [N, E] each, are one part for
            each gate, or one for all gates, side by side.
    """

    parts: Sequence[Columns] | Sequence[Branch]
    gates: Gates | None = None


class Layers:
    """Levels, one above the other; from any thread.

    Attributes:
        width: of the sum, P: all columns of the first level.
        out_width: of what comes out, of all tensors together.
        room: numbers of float32 that a computation needs to work in.

    Raises:
        ValueError: layers, parts or levels do not fit each other.
    """

    def __init__(self, levels: Sequence[Level]) -> None:
        self._bits = library.VECTOR_BITS
        self._memory: list[Tensor] = []
        self._parts: list[tuple[int, ...]] = []
        self._layers: list[tuple[int, ...]] = []
        self._widest = 0
        table: list[tuple[int, ...]] = []
        below: tuple[int, int] | None = None
        outputs = mixtures = weights = 0
        for level in levels:
            first_part, width = len(self._parts), self._add_parts(level.parts, below)
            outputs, self.out_width = max(outputs, width), width
            gates, experts, mask = 0, 0, 0
            below = (0, 0)
            if level.gates is not None:
                gates, experts = level.gates.number, level.gates.experts
                below = (gates, _mixed_width(level.parts, level.gates))
                mask = self._keep(level.gates.mask)
                self.out_width = gates * below[1]
                mixtures, weights = max(mixtures, self.out_width), max(weights, gates * experts)
            apart = len(level.parts) - experts == gates
            of_level = first_part, len(level.parts), gates, experts, below[1], apart, mask
            table.append(of_level)
        self.width = sum(part.width for part in levels[0].parts if isinstance(part, Columns))
        tables = [np.array(rows, np.int64) for rows in (table, self._parts, self._layers)]
        of_levels, of_parts, of_layers = (each.ctypes.data for each in tables)
        counts = self._widest, outputs, mixtures, weights
        network = np.array([of_levels, len(table), of_parts, of_layers, *counts], np.int64)
        self._tables = (*tables, network)
        self._network = network.ctypes.data
        self.room = int(_layers_room(self._network))

    def _add_parts(
        self, parts: Sequence[Columns] | Sequence[Branch], below: tuple[int, int] | None
    ) -> int:
        """Add a level's parts, which read so many streams so wide; the width of what they make."""
        columns = 0
        for part in parts:
            if isinstance(part, Columns) == (below is not None):
                raise ValueError("the first level has columns, those above have branches")
            if isinstance(part, Columns):
                start, width, relu, sparse = columns, part.width, part.relu, True
                columns += width
            else:
                streams, width = below or (0, 0)
                start, relu, sparse = part.stream, False, False
                if not 0 <= start < streams or not part.layers:
                    raise ValueError(f"stream {start} of {streams}, {len(part.layers)} layers")
            self._parts.append((start, width, relu, len(self._layers), len(part.layers)))
            for layer in part.layers:
                self._add_layer(layer, width, sparse)
                width, sparse = len(layer.weight), True
        return sum(part.out_width for part in parts)

    def _add_layer(self, layer: Dense, inputs: int, sparse: bool) -> None:
        outputs = len(layer.weight)
        if layer.weight.shape != (outputs, inputs) or layer.bias.shape != (outputs,):
            raise ValueError(
                f"a layer has weights {layer.weight.shape} and bias {layer.bias.shape} for "
                f"{inputs} inputs"
            )
        if sparse and not layer.relu:
            raise ValueError("a layer after a ReLU must have one itself")
        columns = self._bits // 64 * _LANES // (1 if sparse else 2)
        weight, bias = packed(layer.weight, columns), _aligned(layer.bias)
        at = self._keep(weight), self._keep(bias)
        self._layers.append((*at, inputs, outputs, sparse, layer.relu))
        self._widest = max(self._widest, inputs, outputs)

    def _keep(self, constant: Tensor | None) -> int:
        """Where a constant lies from now on."""
        if constant is None:
            return 0
        self._memory.append(np.ascontiguousarray(constant))
        return address(self._memory[-1], np.float32)

    def compute(
        self,
        users: Tensor,
        user_row: Places,
        items: Kept,
        item_row: Places,
        rows: slice,
        room: Tensor,
        out: Tensor,
    ) -> None:
        """Compute some of N rows.

        What comes out of the last level lies in `out`, a tensor [N, width] after the other: the
        gates' mixtures, or its parts if it has no gates.

        Args:
            users: float32 [U, P]. user_row: int64 [N], each in [0, U).
            items: float32 or float16 [I, P]. item_row: int64 [N], each in [0, I).
            rows: which, with a start and a stop in [0, N].
            room: float32 of at least `room` numbers, of any content, which no other call uses.
            out: float32 of at least N * out_width numbers.

        Raises:
            ValueError: an array is not of that type or shape, or does not lie in one piece.
            IndexError: there is no such row.
        """
        count, dtype = len(user_row), kind(items)
        if len(item_row) != count:
            raise ValueError(f"{len(item_row)} item rows for {count} user rows")
        if not 0 <= rows.start <= rows.stop <= count or room.size < self.room:
            raise ValueError(f"{rows} of {count} rows in a room of {room.size} numbers")
        if out.size < count * self.out_width:
            raise ValueError(f"{out.size} numbers for {count} rows of {self.out_width}")
        outside = _layers(
            *(self._network, address(users, np.float32, self.width), len(users)),
            *(address(user_row, np.int64), address(items, dtype, self.width), len(items)),
            *(address(item_row, np.int64), self.width, dtype is np.float16, count),
            *(rows.start, rows.stop, address(room, np.float32), address(out, np.float32)),
            self._bits,
        )
        if outside:
            raise IndexError(f"rows of {len(users)} users and {len(items)} items, one not there")


def _mixed_width(parts: Sequence[Columns] | Sequence[Branch], gates: Gates) -> int:
    """The width of what gates mix; raises ValueError where they and the parts do not fit."""
    number, experts = gates.number, gates.experts
    widths = [part.out_width for part in parts]
    mixed, logits = set(widths[:experts]), widths[experts:]
    if len(mixed) != 1 or logits not in ([number * experts], [experts] * number):
        raise ValueError(
            f"{number} gates and {experts} experts for parts that are {widths} wide: experts must "
            "be of one width, and logits follow"
        )
    if gates.mask is not None and gates.mask.shape != (number, experts):
        raise ValueError(f"a mask {gates.mask.shape} for {number} gates and {experts} experts")
    return mixed.pop()


def packed(weight: Tensor, columns: int) -> Tensor:
    """W^T as a product reads it: so many of its columns side by side, for all inputs.

    Args:
        weight: W, float32 [outputs, inputs].
        columns: a multiple of 16.

    Returns:
        float32: blocks [inputs, columns] one after the other; the last one is as wide as it must
        be, in multiples of 16, with zeros beside the last columns.
    """
    outputs, inputs = weight.shape
    whole = np.zeros((inputs, -(-outputs // _LANES) * _LANES), np.float32)
    whole[:, :outputs] = weight.T
    blocks = [whole[:, at : at + columns].ravel() for at in range(0, outputs, columns)]
    return _aligned(np.concatenate(blocks))


def _aligned(numbers: Tensor) -> Tensor:
    """A copy that begins with a line of the cache, and zeros up to the end of one."""
    length = -(-len(numbers) // _LANES) * _LANES
    memory: npt.NDArray[np.float32] = np.zeros(length + _LINE // 4, np.float32)
    begin = -memory.ctypes.data % _LINE // 4
    copy = memory[begin : begin + length]
    copy[: len(numbers)] = numbers
    return copy
