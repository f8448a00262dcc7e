"""Environments: made once, made again when their requirements change, refused with pip's words."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from loadtest.peers import environments
from loadtest.peers.environments import Unavailable, environment
from loadtest.peers.products import PRODUCTS, Product


@pytest.fixture
def requirements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "requirements"
    directory.mkdir()
    (directory / "common.txt").write_text("numpy==1\n")
    (directory / "it.txt").write_text("-r common.txt\nit[more]==1.2\n")
    monkeypatch.setattr(environments, "_REQUIREMENTS", directory)
    return directory


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What would be run; the environment's directory appears as if it had been."""
    run: list[list[str]] = []

    def record(command: list[str]) -> None:
        run.append(command)
        if "venv" in command:
            Path(command[-1]).mkdir(parents=True)

    monkeypatch.setattr(environments, "_run", record)
    return run


def test_an_environment_is_made_once(
    requirements: Path, commands: list[list[str]], tmp_path: Path
) -> None:
    made = environment("it", "it", tmp_path / "peers")
    assert made.version == "1.2"
    assert made.python == str(tmp_path / "peers" / "it" / "bin" / "python")
    venv, pip = commands
    assert venv == [sys.executable, "-m", "venv", str(tmp_path / "peers" / "it")]
    assert pip[:4] == [made.python, "-m", "pip", "install"]
    assert pip[-2:] == ["-r", str(requirements / "it.txt")]

    assert environment("it", "it", tmp_path / "peers") == made
    assert len(commands) == 2
    for file in ("it.txt", "common.txt"):
        commands.clear()
        (requirements / file).write_text((requirements / file).read_text() + "more==1\n")
        environment("it", "it", tmp_path / "peers")
        assert len(commands) == 2


@pytest.mark.usefixtures("requirements")
def test_an_installation_that_fails_leaves_no_stamp(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    (tmp_path / "python").write_text("#!/bin/sh\necho one >&2\necho ERROR: no it >&2\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    with pytest.raises(Unavailable, match="not installed: ERROR: no it"):
        environment("it", "it", tmp_path / "peers")
    assert not (tmp_path / "peers" / "it" / "made_from").exists()


@pytest.mark.parametrize("product", PRODUCTS, ids=lambda product: product.name)
def test_every_peer_is_pinned(product: Product, commands: list[list[str]], tmp_path: Path) -> None:
    assert environment(product.requirements, product.main, tmp_path).version[0].isdigit()
    assert commands
