"""The README's commands are run as they are written, against the model that they are about."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.settings import PREFIX, Settings
from tests.conftest import ROOT
from tests.servers import Service

README = (ROOT / "README.md").read_text()
HERE = "http://localhost:8000"
"""Where the README says that the service listens."""

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_BLOCKS: list[tuple[str, str]] = _FENCED.findall(README)
CURLS = [
    text if language == "bash" else re.sub(r"^\$ ", "", text, flags=re.MULTILINE)
    for language, text in _BLOCKS
    if language in ("bash", "console") and "curl " in text
]


def answers_shown() -> list[Any]:
    """The example answer behind each block of commands that has one."""
    shown = []
    for (_, commands), (language, answer) in itertools.pairwise(_BLOCKS):
        if "curl " in commands and language == "json":
            shown.append((commands, json.loads(answer)))
    return shown


@pytest.fixture(scope="module")
def movielens(
    movielens_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """The demo's service, as `make serve` starts it but for the port."""
    service = Service(movielens_models, tmp_path_factory.mktemp("serve"), {})
    try:
        yield service.wait_ready()
    finally:
        service.stop()


_CURL = """#!{python}
# What the README asks of curl, for a machine that has none.
import sys, urllib.error, urllib.request
headers, body, url, arguments = {{}}, None, "", iter(sys.argv[1:])
for each in arguments:
    if each == "-H":
        name, _, value = next(arguments).partition(":")
        headers[name] = value.strip()
    elif each == "-d":
        body = next(arguments).encode()
    elif each != "-s":
        url = each
try:
    answer = urllib.request.urlopen(urllib.request.Request(url, body, headers))
except urllib.error.HTTPError as error:
    answer = error
sys.stdout.write(answer.read().decode())
sys.stderr.write("status=%d\\n" % answer.status)
"""


def with_curl(directory: Path) -> str:
    """A PATH on which there is a curl."""
    if shutil.which("curl") is None:
        stand_in = directory / "curl"
        stand_in.write_text(_CURL.format(python=sys.executable))
        stand_in.chmod(0o755)
    return f"{os.environ['PATH']}:{directory}"


def run(commands: str, url: str, directory: Path) -> tuple[str, list[int]]:
    """Run a block in bash; returns what it prints, and the status of each answer."""
    (directory / ".curlrc").write_text('silent\nwrite-out = "%{stderr}status=%{http_code}\\\\n"\n')
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands.replace(HERE, url)],
        env={"PATH": with_curl(directory), "CURL_HOME": str(directory), "HOME": str(directory)},
        capture_output=True,
        text=True,
        cwd=directory,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, [int(status) for status in re.findall(r"status=(\d+)", done.stderr)]


def test_the_readme_asks_for_what_there_is() -> None:
    commands = "".join(CURLS)
    for path in ("/rank", "/score", "/models", "/readyz"):
        assert f"curl -s {HERE}{path}" in commands
    assert answers_shown()


@pytest.mark.parametrize("commands", CURLS)
def test_commands_work_as_written(movielens: Service, commands: str, tmp_path: Path) -> None:
    assert HERE in commands
    printed, statuses = run(commands, movielens.url, tmp_path)

    assert statuses == [200] * len(re.findall(r"\bcurl ", commands))
    assert printed


def test_the_demos_ranking_is_not_degraded(movielens: Service, tmp_path: Path) -> None:
    printed, _ = run(CURLS[0], movielens.url, tmp_path)
    answer = json.loads(printed)

    assert answer["model"]["name"] == "movielens"
    assert answer["degraded"] is None
    scores = [item["score"] for item in answer["items"]]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize(("commands", "shown"), answers_shown())
def test_answers_have_the_fields_that_are_shown(
    movielens: Service, commands: str, shown: Any, tmp_path: Path
) -> None:
    printed, _ = run(commands, movielens.url, tmp_path)
    answer = json.loads(printed)

    assert set(answer) == set(shown)
    for part, fields in shown.items():
        if isinstance(fields, dict):
            assert set(answer[part]) == set(fields)
    assert set(answer["items"][0]) == set(shown["items"][0])


def test_every_setting_is_in_the_table() -> None:
    settings = {f"{PREFIX}{name}".upper() for name in Settings.model_fields}

    assert set(re.findall(r"MULTIRANK_[A-Z_]+", README)) == settings
