"""The loop is the one that this processor has instructions for."""

from __future__ import annotations

from pathlib import Path

from service.native import library


def test_the_widest_instructions_are_known() -> None:
    flags = {*Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split()}
    widest = 512 if {"avx512f", "bmi1"} <= flags else 256 if {"avx2", "bmi1"} <= flags else 128
    assert widest == library.VECTOR_BITS
