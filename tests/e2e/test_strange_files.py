"""Whatever lies where a deployment or a formula should be: nobody waits for it, and it is named."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.e2e.asking import REQUEST
from tests.published import MODEL, ModelsDirectory
from tests.servers import Service, eventually
from tests.strange_files import STRANGE


def put_away(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


@pytest.fixture
def short(tmp_path: Path, trained_models: Path) -> ModelsDirectory:
    """A model directory whose path is short enough for a socket's name."""
    return ModelsDirectory.create(tmp_path / "m", trained_models)


def test_strange_deployments_and_formulas(short: ModelsDirectory, serve: Serve) -> None:
    service = serve(short.path)
    service.allow_in_log("deployment refused|fusion .* refused|the history is not kept")
    for make, says in STRANGE:
        deployment = short.model / "deployment.json"
        make(deployment)
        eventually(partial(says_problem, service, says))
        put_away(deployment)
        eventually(lambda: service.model(MODEL)["problem"] is None)
    for name in ("another", "rules"):
        for make, says in STRANGE:
            formula = short.model / "fusions" / f"{name}.yaml"
            make(formula)
            eventually(partial(says_refused, service, name, says))
            put_away(formula)
            eventually(lambda: refused(service) == {})
    assert service.rank(**REQUEST)["degraded"] is None


def says_problem(service: Service, says: str) -> bool:
    return says in (service.model(MODEL)["problem"] or "")


def says_refused(service: Service, name: str, says: str) -> bool:
    return says in refused(service).get(name, "")


def refused(service: Service) -> dict[str, str]:
    found: dict[str, str] = service.model(MODEL)["fusions_refused"]
    return found


def test_strange_neighbours_keep_no_version_out(short: ModelsDirectory, serve: Serve) -> None:
    os.mkfifo(short.model / "warm_up.parquet")
    (short.model / "99999999999999999999999").mkdir()
    (short.model / "007").mkdir()
    service = serve(short.path)
    service.expect_in_log(
        "no warm-up with recorded requests: .*must be a plain file, is a named pipe"
    )
    version = short.publish(2)
    eventually(lambda: service.rank(**REQUEST)["model"]["version"] == version)
    assert [each["version"] for each in service.model(MODEL)["versions"]] == [version, 1]
