"""The first layers of a joint stage, and of levels above it, by `layers.c`.

    sums = users[user_row] + items[item_row], cut into parts     a part: columns, rectified or not
    part = max(part W^T + b, 0), for each of its layers

An item's numbers are read where they are kept. A product leaves out the inputs that are zero, which
is what ReLU makes of half of them: it adds up the rows of W^T that the others name
(docs/decisions/0048). A level reads what gates have mixed, of which nothing is zero.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.native import library
from service.native.library import Kept, Places, Tensor, address, function, kind

_LANES = 16
_LINE = 64
_layers = function("layers", "pnppnpnnnnnpnpnppn", lets_go=True)
_level = function("level", "pnnnpnpnppn", lets_go=True)
_layers_room = function("layers_room", "n", lets_go=False)


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


@dataclass(frozen=True)
class Branch:
    """What reads a stream, one of several tensors of a width: one layer or more.

    Attributes:
        stream: its number.
    """

    stream: int
    layers: tuple[Dense, ...]


class _Program:
    """Parts, and the layers that they go through.

    Attributes:
        out_width: of what comes of the parts, of all together.
        room: numbers of float32 that a computation needs to work in.
    """

    def __init__(
        self, parts: Sequence[tuple[int, Columns | Branch]], inputs: Sequence[int]
    ) -> None:
        self._bits = library.VECTOR_BITS
        self._memory: list[Tensor] = []
        table: list[tuple[int, ...]] = []
        layers: list[tuple[int, ...]] = []
        self.out_width, widest = 0, 0
        for (start, part), width in zip(parts, inputs, strict=True):
            sparse = isinstance(part, Columns)
            relu = isinstance(part, Columns) and part.relu
            table.append((start, width, relu, len(layers), len(part.layers)))
            for layer in part.layers:
                layers.append(self._add(layer, width, sparse))
                widest = max(widest, width, len(layer.weight))
                width, sparse = len(layer.weight), True
            self.out_width += width
        self._parts = np.array(table, np.int64)
        self._layers = np.array(layers, np.int64).reshape(-1, 6)
        self._widest = widest
        self.room = int(_layers_room(widest))
        self._program = (
            *(self._parts.ctypes.data, len(self._parts), self._layers.ctypes.data),
            self._widest,
        )

    def _add(self, layer: Dense, inputs: int, sparse: bool) -> tuple[int, ...]:
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
        self._memory += [weight, bias]
        return weight.ctypes.data, bias.ctypes.data, inputs, outputs, sparse, layer.relu

    def _check(self, count: int, rows: slice, room: Tensor, out: Tensor) -> None:
        if not 0 <= rows.start <= rows.stop <= count or room.size < self.room:
            raise ValueError(f"{rows} of {count} rows in a room of {room.size} numbers")
        if out.size < count * self.out_width:
            raise ValueError(f"{out.size} numbers for {count} rows of {self.out_width}")


class Layers(_Program):
    """The parts of a sum of users' and items' numbers; from any thread.

    Attributes:
        width: of the sum, P: all parts' columns.

    Raises:
        ValueError: the layers of a part do not fit each other.
    """

    def __init__(self, parts: Sequence[Columns]) -> None:
        widths = [part.width for part in parts]
        starts = itertools.accumulate(widths, initial=0)
        super().__init__(list(zip(starts, parts, strict=False)), widths)
        self.width = sum(widths)

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
        """Compute some of N rows, of all parts; each has its [N, width] in `out`, one by one.

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
        self._check(count, rows, room, out)
        outside = _layers(
            *(address(users, np.float32, self.width), len(users), address(user_row, np.int64)),
            *(address(items, dtype, self.width), len(items), address(item_row, np.int64)),
            *(self.width, dtype is np.float16, count, rows.start, rows.stop, *self._program),
            *(address(room, np.float32), address(out, np.float32), self._bits),
        )
        if outside:
            raise IndexError(f"rows of {len(users)} users and {len(items)} items, one not there")


class Level(_Program):
    """Branches that read streams [N, width], of which there are so many; from any thread.

    Raises:
        ValueError: the layers of a branch do not fit each other, or there is no such stream.
    """

    def __init__(self, branches: Sequence[Branch], streams: int, width: int) -> None:
        super().__init__([(each.stream, each) for each in branches], [width] * len(branches))
        self._shape = (streams, width)
        for branch in branches:
            if not 0 <= branch.stream < streams or not branch.layers:
                raise ValueError(
                    f"stream {branch.stream} of {streams}, {len(branch.layers)} layers"
                )

    def compute(self, streams: Tensor, rows: slice, room: Tensor, out: Tensor) -> None:
        """Compute some of N rows, of all branches; each has its [N, width] in `out`, one by one.

        Args:
            streams: float32 [S, N, width]. The others: see `Layers.compute`.

        Raises:
            ValueError: an array is not of that type or shape, or does not lie in one piece.
        """
        number, count, width = streams.shape
        if (number, width) != self._shape:
            due, wide = self._shape
            raise ValueError(f"streams are {streams.shape}, must be {due} of {wide}")
        self._check(count, rows, room, out)
        _level(
            *(address(streams, np.float32), count, rows.start, rows.stop, *self._program),
            *(address(room, np.float32), address(out, np.float32), self._bits),
        )


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
