"""Mixtures: what numpy would compute, in whichever loop."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.native.mixtures import mix

pytestmark = pytest.mark.usefixtures("loop")


@given(
    st.tuples(st.integers(0, 20), st.integers(1, 4), st.integers(1, 6), st.integers(1, 150)),
    st.booleans(),
    st.floats(0, 200),
    st.integers(0, 1000),
)
def test_gates_mix_what_experts_say(
    shape: tuple[int, int, int, int], masked: bool, spread: float, seed: int
) -> None:
    rows, gates, experts, width = shape
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((rows, gates, experts), np.float32) * np.float32(spread)
    mask = np.where(rng.random((gates, experts)) < 0.4, -np.inf, 0).astype(np.float32)
    mask[:, 0] = 0
    outputs = rng.standard_normal((experts, rows, width), np.float32)
    allowed = logits + mask if masked else logits
    weights = np.exp((allowed - allowed.max(axis=-1, keepdims=True)).astype(np.float64))
    weights /= weights.sum(axis=-1, keepdims=True)
    out = np.full((gates, rows, width), 7, np.float32)
    apart, of_apart = logits.swapaxes(0, 1).copy(), np.empty_like(out)
    for some in (slice(0, rows // 3), slice(rows // 3, rows)):
        mix(logits, mask if masked else None, outputs, some, out)
        mix(apart.swapaxes(0, 1), mask if masked else None, outputs, some, of_apart)
    np.testing.assert_allclose(logits, weights, rtol=2e-6, atol=1e-37)
    np.testing.assert_array_equal(of_apart, out)
    expected = np.einsum("nge,enh->gnh", weights, outputs)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


def test_a_gate_without_a_number_says_so_and_an_expert_that_is_not_asked_does_not() -> None:
    logits = np.zeros((2, 2, 2), np.float32)
    logits[1, 1, 0] = np.nan
    mask = np.array([[0, -np.inf], [0, 0]], np.float32)
    outputs = np.ones((2, 2, 17), np.float32)
    outputs[1, 0] = np.nan
    out = np.empty((2, 2, 17), np.float32)
    mix(logits, mask, outputs, slice(0, 2), out)
    assert np.isnan(out).all(axis=2).tolist() == [[False, False], [True, True]]
    assert (out[0] == 1).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": np.zeros((4, 2, 3))}, "float64 in pieces or of another type; float32"),
        ({"logits": np.zeros((4, 3, 2), np.float32).swapaxes(1, 2)}, "float32 in pieces"),
        ({"mask": np.zeros((2, 4), np.float32)}, "experts, mixtures and mask are"),
        ({"mask": np.zeros((2, 3))}, "float64 in pieces"),
        ({"experts": np.zeros((3, 5, 7), np.float32)}, "experts, mixtures and mask are"),
        ({"out": np.zeros((2, 4, 6), np.float32)}, "experts, mixtures and mask are"),
        ({"out": np.zeros((4, 2, 7), np.float32).swapaxes(0, 1)}, "float32 in pieces"),
        ({"rows": slice(0, 5)}, "slice(0, 5, None) of 4 rows"),
        ({"rows": slice(-1, 2)}, "slice(-1, 2, None) of 4 rows"),
    ],
)
def test_nothing_outside_is_mixed(change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {
        "logits": np.zeros((4, 2, 3), np.float32),
        "mask": np.zeros((2, 3), np.float32),
        "experts": np.zeros((3, 4, 7), np.float32),
        "rows": slice(0, 4),
        "out": np.zeros((2, 4, 7), np.float32),
    }
    with pytest.raises(ValueError, match=re.escape(message)):
        mix(**given | change)
