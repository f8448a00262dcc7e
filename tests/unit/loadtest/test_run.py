"""The command line: what cannot be run is said, in one line, before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from loadtest.run import app


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--models", "{nowhere}"], "no published model"),
        (["--models", "{nowhere}", "--model", "shop"], "no model 'shop'"),
        (["--seconds", "0"], "--seconds"),
        (["--users", "0"], "--users"),
        (["--candidates", "0"], "--candidates"),
        (["--format", "xml"], "--format"),
    ],
)
def test_wrong_options_end_with_2(tmp_path: Path, options: list[str], message: str) -> None:
    given = [option.format(nowhere=tmp_path / "nowhere") for option in options]
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, given)

    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output


def test_without_locust_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = CliRunner().invoke(app, [])

    assert result.exit_code == 2
    assert "multirank[dev]" in result.output
