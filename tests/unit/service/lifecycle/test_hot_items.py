"""Hot items: a version has their tensors before its first request, as far as there is time."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from service.lifecycle import warm_up
from tests.unit.service.lifecycle.registry_bench import Bench, OnBench

PARTS = [["i1", "i2"], ["i3"]]


def test_a_version_has_them_before_it_is_live(on_bench: OnBench) -> None:
    async def test(bench: Bench) -> None:
        lived: list[int | None] = []

        def parts() -> Iterator[list[str]]:
            for part in PARTS:
                lived.append(bench.live())
                yield part

        bench.hot_items = parts()
        bench.publish(1)
        await bench.until_live(1)
        assert bench.gate.items == PARTS
        assert lived == [None, None]

    on_bench(test)


def test_no_version_waits_for_them_for_long(
    on_bench: OnBench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(bench: Bench) -> None:
        bench.hot_items = PARTS
        bench.publish(1)
        await bench.until_live(1)
        assert bench.gate.items == []
        assert "tiny version 1: no time for more than 0 hot items" in caplog.text

    monkeypatch.setattr(warm_up, "_HOT_ITEMS_S", -1.0)
    with caplog.at_level(logging.INFO):
        on_bench(test)
