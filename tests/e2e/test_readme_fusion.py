"""What the README says of formulas is what the program says."""

from __future__ import annotations

import re

import pytest
import yaml

from multirank.fusion import commands as commands_of_fusion
from service.fusion import operators
from service.fusion.compile import compile_fusion
from service.fusion.directory import parse_fusions
from service.fusion.errors import FusionError
from service.fusion.rules import compile_rules, parse_rules
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()
TASKS = ("watch", "like", "rating")
WEIGHTED = b"formula: watch ** w\nweights: {w: {default: 1, minimum: 0, maximum: 2}}"


def block(after: str) -> str:
    """The first block of code after a text."""
    found = re.search(r"```\w*\n(.*?)\n```", README[README.index(after) :], re.DOTALL)
    assert found
    return found.group(1)


SHOWN = re.split(r"\n(?=\S)", block("<!-- mistakes"))


def mistake(text: bytes, overrides: dict[str, float]) -> str:
    read = parse_fusions({"default": text})
    if read.mistakes:
        return str(read.mistakes["default"])
    with pytest.raises(FusionError) as caught:
        compile_fusion(read.usable["default"], TASKS, {}).bind_weights(overrides)
    return str(caught.value)


@pytest.mark.parametrize("shown", SHOWN)
def test_mistakes_look_as_shown(shown: str) -> None:
    line = shown.splitlines()[1].removeprefix("    ")
    if shown.startswith("weights:"):
        name, value = line.split(": ")
        assert mistake(WEIGHTED, {name: float(value)}) == shown
    else:
        text = f"formula: watch\n{line}" if line.startswith("weights") else line
        assert mistake(text.encode(), {}) == shown


def test_the_mistakes_that_matter_are_shown() -> None:
    shown = "\n".join(SHOWN)
    for words in ("unknown name", "number here, this is a boolean", "must be within"):
        assert words in shown


def test_the_table_of_operators_is_the_programs() -> None:
    documented = (operators.__doc__ or "").partition("    a + b, a - b")
    table = (documented[1] + documented[2]).rstrip()
    assert block("<!-- operators") == re.sub("^    ", "", table, flags=re.MULTILINE)


def test_the_example_files_are_good() -> None:
    fusion = block("A formula is a file")
    base = yaml.safe_dump({"formula": "watch"})
    read = parse_fusions({"default": fusion.encode(), "base": base.encode()})
    assert not read.mistakes
    compile_fusion(read.usable["default"], TASKS, {})
    rules = parse_rules(block("**Rules**").encode())
    compile_rules(rules, ("calm", "likes"), {"hour": "bucketised"})


def test_every_command_that_is_shown_exists() -> None:
    shown = set(re.findall(r"^multirank fusion (\w+)", README, re.MULTILINE))
    commands = commands_of_fusion.app.registered_commands
    assert shown == {each.name or getattr(each.callback, "__name__", "") for each in commands}
