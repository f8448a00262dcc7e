"""Warm-up with recorded requests: what cannot be read is said, and keeps no version out."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from bundle.store import load
from service.lifecycle.warm_up import score_recorded
from service.metrics import Metrics
from service.scoring.stages import open_model
from tests.unit.bundle.tiny import write_bundle


def test_a_file_that_is_no_log_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bundle = load(write_bundle(tmp_path / "tiny"))
    encoder = bundle.encoder()
    model = open_model(bundle, encoder, 1, 1 << 16, Metrics())
    file = tmp_path / "warm_up.parquet"
    assert score_recorded(file, model, encoder, 16) == 0
    assert not caplog.records
    file.write_text("not a decision log")
    with caplog.at_level(logging.WARNING):
        assert score_recorded(file, model, encoder, 16) == 0
    assert "no warm-up with recorded requests" in caplog.text
    assert "warm_up.parquet" in caplog.text
