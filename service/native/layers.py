"""The first layers of a joint stage, by `layers.c`.

    sums = users[user_row] + items[item_row], cut into parts     a part: columns, rectified or not
    part = max(part W^T + b, 0), for each of its layers

An item's numbers are read where they are kept. A product leaves out the inputs that are zero, which
is what ReLU makes of half of them: it adds up the rows of W^T that the others name
(docs/decisions/0048).
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
_layers = function("layers", "pnppnpnnnnnpnpnppn", lets_go=True)
_layers_room = function("layers_room", "n", lets_go=False)


@dataclass(frozen=True)
class Dense:
    """A layer max(x W^T + b, 0).

    Attributes:
        weight: W, float32 [outputs, inputs]. bias: b, float32 [outputs].
    """

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Columns:
    """A part: some columns of the sum, and the layers that they go through.

    Attributes:
        relu: whether the columns are rectified, max(x, 0); NaN stays. Before a layer they are.
    """

    width: int
    relu: bool
    layers: tuple[Dense, ...] = ()

    @property
    def out_width(self) -> int:
        """Of what comes out."""
        return len(self.layers[-1].weight) if self.layers else self.width


class Layers:
    """The parts of one stage; from any thread.

    Attributes:
        width: of the sum, P: all parts' columns.
        out_width: of what the parts are in the end, of all together.
        room: numbers of float32 that `compute` needs to work in.

    Raises:
        ValueError: the layers of a part do not fit each other.
    """

    def __init__(self, parts: Sequence[Columns]) -> None:
        self._bits = library.VECTOR_BITS
        starts = np.cumsum([0, *(part.width for part in parts)])
        self.width = int(starts[-1])
        self.out_width = sum(part.out_width for part in parts)
        layers = [layer for part in parts for layer in part.layers]
        for part in parts:
            _check(part)
        firsts = np.cumsum([0, *(len(part.layers) for part in parts)])
        self._parts = np.array(
            [
                (start, part.width, part.relu, first, len(part.layers))
                for start, part, first in zip(starts, parts, firsts, strict=False)
            ],
            np.int64,
        )
        self._memory = [
            (packed(layer.weight, self._bits), _aligned(layer.bias)) for layer in layers
        ]
        self._layers = np.array(
            [
                (weight.ctypes.data, bias.ctypes.data, *layer.weight.shape[::-1])
                for (weight, bias), layer in zip(self._memory, layers, strict=True)
            ],
            np.int64,
        ).reshape(-1, 4)
        widths = [part.width for part in parts] + [len(layer.weight) for layer in layers]
        self._widest = max(widths) if layers else 0
        self.room = int(_layers_room(self._widest))

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
        if len(item_row) != count or out.size < count * self.out_width:
            raise ValueError(f"{len(item_row)} item rows, {out.size} numbers for {count} user rows")
        if not 0 <= rows.start <= rows.stop <= count or room.size < self.room:
            raise ValueError(f"{rows} of {count} rows in a room of {room.size} numbers")
        outside = _layers(
            *(address(users, np.float32, self.width), len(users), address(user_row, np.int64)),
            *(address(items, dtype, self.width), len(items), address(item_row, np.int64)),
            *(self.width, dtype is np.float16, count, rows.start, rows.stop),
            *(self._parts.ctypes.data, len(self._parts), self._layers.ctypes.data, self._widest),
            *(address(room, np.float32), address(out, np.float32), self._bits),
        )
        if outside:
            raise IndexError(f"rows of {len(users)} users and {len(items)} items, one not there")


def packed(weight: Tensor, bits: int) -> Tensor:
    """W^T as a product reads it: as many of its columns side by side as eight vectors have.

    Args:
        weight: W, float32 [outputs, inputs].
        bits: in a vector.

    Returns:
        float32: blocks [inputs, 16 * n] one after the other, zeros beside the last columns.
    """
    outputs, inputs = weight.shape
    columns = np.zeros((inputs, -(-outputs // _LANES) * _LANES), np.float32)
    columns[:, :outputs] = weight.T
    step = bits // 64 * _LANES
    blocks = [columns[:, at : at + step].ravel() for at in range(0, outputs, step)]
    return _aligned(np.concatenate(blocks))


def _aligned(numbers: Tensor) -> Tensor:
    """A copy that begins with a line of the cache, and zeros up to the end of one."""
    length = -(-len(numbers) // _LANES) * _LANES
    memory: npt.NDArray[np.float32] = np.zeros(length + _LINE // 4, np.float32)
    begin = -memory.ctypes.data % _LINE // 4
    copy = memory[begin : begin + length]
    copy[: len(numbers)] = numbers
    return copy


def _check(part: Columns) -> None:
    width = part.width
    for layer in part.layers:
        outputs, inputs = layer.weight.shape
        if inputs != width or layer.bias.shape != (outputs,):
            raise ValueError(
                f"a layer has weights {layer.weight.shape} and bias {layer.bias.shape} for "
                f"{width} inputs"
            )
        width = outputs
