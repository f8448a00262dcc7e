"""What gates make of experts, by `mixtures.c`."""

from __future__ import annotations

import numpy as np

from service.native import library
from service.native.library import Tensor, address, function

_mix = function("mix", "pnnppnnnnpnnn", lets_go=True)


def mix(logits: Tensor, mask: Tensor | None, experts: Tensor, rows: slice, out: Tensor) -> None:
    """Gates' mixtures of some of N rows: out[g] = sum_e softmax(logits + mask)[g, e] experts[e].

    An expert whose weight is zero is left out, whatever it says.

    Args:
        logits: float32 [N, G, E], a gate's in one piece; those of the rows become the weights.
        mask: float32 [G, E], or None.
        experts: float32 [E, N, H].
        rows: which, with a start and a stop in [0, N].
        out: float32 [G, N, H].

    Raises:
        ValueError: an array is not of that type or shape, or does not lie in one piece.
    """
    count, gates, number = logits.shape
    width = experts.shape[-1]
    shapes = [experts.shape, out.shape, (gates, number) if mask is None else mask.shape]
    if shapes != [(number, count, width), (gates, count, width), (gates, number)]:
        raise ValueError(f"experts, mixtures and mask are {shapes} for logits {logits.shape}")
    if not 0 <= rows.start <= rows.stop <= count:
        raise ValueError(f"{rows} of {count} rows")
    of_row, of_gate, of_expert = (step // logits.itemsize for step in logits.strides)
    if logits.dtype != np.float32 or (of_expert != 1 and logits.size):
        raise ValueError(f"{logits.dtype} in pieces or of another type; float32 is due")
    _mix(
        *(logits.ctypes.data, of_row, of_gate),
        *(None if mask is None else address(mask, np.float32), address(experts, np.float32)),
        *(count, gates, number, width, address(out, np.float32)),
        *(rows.start, rows.stop, library.VECTOR_BITS),
    )
