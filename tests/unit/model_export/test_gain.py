"""The gain of the stages, as it is printed; the command that measures it is in test_commands."""

from __future__ import annotations

from rich.console import Console

from model_export.gain import Gain
from model_export.report import print_gain


def test_it_says_both_ratios_and_their_price() -> None:
    gain = Gain(undivided_ms=6.0, cold_ms=4.0, cached_ms=2.0, item_tensor_bytes=8320)
    console = Console(record=True, quiet=False)
    print_gain(gain, console)
    said = console.export_text()
    assert "2.00 ms with item tensors cached, 4.00 ms with none, 6.00 ms undivided" in said
    assert "3.0 and 1.5 times as fast, at 8,320 bytes an item" in said
