"""The training commands: what they print, and how they fail."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner, Result

from model_export import config
from multirank import training
from tests.unit.model_export import experiments

Invoke = Callable[..., Result]
Write = Callable[..., Path]


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    training.register(app)

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def file(name: str = "tiny", **changes: object) -> Path:
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(experiments.tiny(name=name, **changes)))
        return path

    return file


def test_run_prints_data_metrics_parity_and_path(
    invoke: Invoke, write: Write, tmp_path: Path
) -> None:
    result = invoke("run", write())
    assert result.exit_code == 0, result.output
    for expected in (
        "data: synthetic feed",
        "40 users, 30 items, 640 train rows",
        "epoch 2, validation: click AUC 0.",
        "trained tiny (mmoe): 2 epochs",
        "parity: onnxruntime and torch differ by at most",
        "stages: 200 candidates take",
        "published: models/tiny/1",
        "formula:   models/tiny/fusions/default.yaml",
    ):
        assert expected in result.output
    assert (tmp_path / "models" / "tiny" / "1" / "manifest.json").is_file()


def test_the_steps_can_be_taken_one_by_one(
    invoke: Invoke, write: Write, exported_run: Path, tmp_path: Path
) -> None:
    path = write()
    assert "run: runs/tiny" in invoke("train", path).output
    published = invoke("publish", path, "--runs", exported_run.parent, "--models", "elsewhere")
    assert "published: elsewhere/tiny/1" in published.output
    assert (tmp_path / "elsewhere" / "tiny" / "1" / "manifest.json").is_file()


def test_compare_trains_what_is_not_there_and_prints_both(invoke: Invoke, write: Write) -> None:
    bottom = {"family": "shared_bottom", "bottom_layers": [16], "embedding_width": 4}
    first, second = write("one"), write("two", architecture=bottom)
    assert invoke("train", first).exit_code == 0
    result = invoke("compare", first, second)
    assert result.exit_code == 0, result.output
    assert "runs/one: trained already" in result.output
    assert "trained two (shared_bottom)" in result.output
    header = next(line for line in result.output.splitlines()[::-1] if "metric" in line)
    assert "one" in header
    assert "two" in header
    assert "trained one" not in invoke("compare", first, second).output


def test_compare_over_seeds_keeps_a_run_for_each(
    invoke: Invoke, write: Write, tmp_path: Path
) -> None:
    result = invoke("compare", write(), "--seeds", "3,4")
    assert result.exit_code == 0, result.output
    assert "mean ± deviation of 2 seeds" in " ".join(result.output.split())
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["tiny", "tiny-seed-4"]
    assert config.load(tmp_path / "runs" / "tiny-seed-4" / "config.yaml").seed == 4


def test_compare_refuses_what_cannot_be_compared(invoke: Invoke, write: Write) -> None:
    data = {**experiments.tiny()["data"], "seed": 5}
    result = invoke("compare", write("one"), write("two", data=data))
    assert result.exit_code == 1
    assert "two.yaml: data: not that of" in result.output
    twice = write("one")
    assert "share a name" in invoke("compare", twice, twice).output
    assert invoke("compare", twice, "--seeds", "1,x").exit_code == 2


def test_errors_are_messages(invoke: Invoke, write: Write) -> None:
    result = invoke("run", write(training={"epochs": 0}))
    assert result.exit_code == 1
    assert "error: " in result.output
    assert "training.epochs: " in result.output
    assert "Traceback" not in result.output
    assert "run `multirank train` first" in invoke("export", write()).output
    assert "error: " in invoke("publish", write()).output


@pytest.mark.parametrize("command", ["run", "train"])
def test_a_formula_that_cannot_be_served_is_found_before_training(
    invoke: Invoke, write: Write, tmp_path: Path, command: str
) -> None:
    result = invoke(command, write(fusion={"formula": "clik * 2"}))
    assert result.exit_code == 1
    assert "tiny.yaml: fusion: default.yaml:1:10: unknown name 'clik'" in result.output
    assert not (tmp_path / "runs").exists()


def test_without_torch_the_command_says_what_to_install(
    invoke: Invoke, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    result = invoke("train", write())
    assert result.exit_code == 1
    assert "pip install 'multirank[train]'" in result.output
