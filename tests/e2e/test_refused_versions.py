"""A new version that is not as it should be is refused, says why, and changes nothing else."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Serve
from tests.e2e.asking import CONTEXT, IDS, REQUEST, USER, scores_of
from tests.e2e.damages import bring, link_to_nowhere, remove, truncate
from tests.e2e.refusals import DAMAGES, Damage
from tests.published import MODEL, ModelsDirectory, fused
from tests.servers import Service, eventually


@dataclass(frozen=True)
class Served:
    """A service and its model directory, into which one bad version after the other comes."""

    service: Service
    models: ModelsDirectory

    def bring(self, damage: Callable[[Path], None]) -> int:
        """Let a damaged version appear, whole and at once, as a publisher would."""
        return bring(self.models, damage)


@pytest.fixture(scope="module")
def served(trained_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Version 1, to which nothing may happen."""
    directory = tmp_path_factory.mktemp("refused") / "models"
    models = ModelsDirectory.create(directory, trained_models)
    service = Service(models.path, tmp_path_factory.mktemp("serve"), {})
    try:
        yield Served(service.wait_ready(), models)
    finally:
        service.stop()


@pytest.mark.parametrize("bad", [pytest.param(bad, id=bad.name) for bad in DAMAGES])
def test_a_damaged_version_is_refused(served: Served, bad: Damage) -> None:
    service, models = served.service, served.models
    counted = {"model": MODEL, "reason": bad.code}
    before = service.metric("multirank_versions_refused_total", **counted)
    version = served.bring(bad.damage)

    eventually(lambda: (seen := service.version(MODEL, version)) and seen["state"] == "refused")
    status = service.version(MODEL, version)
    assert status["reason"].startswith(f"{bad.code}: "), status
    assert bad.says in status["reason"]
    assert (status["traffic"], status["labels"], status["leases"]) == (0.0, [], 0)
    service.expect_in_log(rf"version {version} refused: {bad.code}: .*{re.escape(bad.says)}")
    assert "(version 1 stays)" in service.log().split(f"version {version} refused: ")[1]
    assert service.metric("multirank_versions_refused_total", **counted) == before + 1

    answer = service.rank(**REQUEST)
    assert answer["model"]["version"] == 1
    right = fused(models.expected(1).scores(USER, IDS, CONTEXT))
    np.testing.assert_allclose(scores_of(answer), np.sort(right)[::-1], rtol=1e-5, atol=1e-5)
    assert service.version(MODEL, 1)["state"] == "ready"


def test_the_same_copy_undamaged_is_let_in(models_dir: ModelsDirectory, serve: Serve) -> None:
    service = serve(models_dir.path)
    version = bring(models_dir, lambda version: None)

    eventually(lambda: service.rank(**REQUEST)["model"]["version"] == version)


def test_a_good_version_after_bad_ones_is_let_in(models_dir: ModelsDirectory, serve: Serve) -> None:
    bring(models_dir, truncate("joint.onnx", 0.5))
    bring(models_dir, link_to_nowhere("user.onnx"))
    service = serve(models_dir.path)
    service.expect_in_log("version 2 refused: digest_mismatch: .*")
    service.expect_in_log("version 3 refused: file_unsafe: .*")
    assert service.rank(**REQUEST)["model"]["version"] == 1
    assert [v["state"] for v in service.model(MODEL)["versions"]] == ["refused", "refused", "ready"]

    version = models_dir.publish(2)
    eventually(lambda: service.rank(**REQUEST)["model"]["version"] == version)


def test_a_version_mended_in_place_is_let_in(models_dir: ModelsDirectory, serve: Serve) -> None:
    service = serve(models_dir.path)
    version = bring(models_dir, remove("joint.onnx"))
    service.expect_in_log(f"version {version} refused: file_missing: .*")

    shutil.copy(models_dir.trained / MODEL / "2" / "joint.onnx", models_dir.model / str(version))
    eventually(lambda: service.rank(**REQUEST)["model"]["version"] == version)


def test_no_good_version_at_all(models_dir: ModelsDirectory, serve: Serve) -> None:
    (models_dir.model / "1" / "user.onnx").unlink()
    service = serve(models_dir.path, ready=False)
    line = service.expect_in_log("version 1 refused: file_missing: .*")
    assert line.endswith("(none is live)")

    ready = service.http.get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["errors"][0]["loc"] == f"models.{MODEL}"
    assert service.http.post("/rank", json=REQUEST).json()["code"] == "no_active_model"


def test_a_damaged_model_does_not_keep_others_from_being_served(
    models_dir: ModelsDirectory, serve: Serve
) -> None:
    other = models_dir.copy_as_model("another", trained_version=2)
    (models_dir.path / other / "1" / "user.onnx").unlink()
    (models_dir.path / other / "1" / "user.onnx").symlink_to("nowhere")
    service = serve(models_dir.path)
    service.expect_in_log(f"{other} version 1 refused: file_unsafe: .*")

    assert service.http.get("/readyz").json()["models_without_version"] == [other]
    assert service.rank(**REQUEST, model=MODEL)["model"] == {"name": MODEL, "version": 1}
    assert service.rank(**REQUEST)["model"] == {"name": MODEL, "version": 1}
    answer = service.http.post("/rank", json=REQUEST | {"model": other})
    assert answer.json()["code"] == "no_active_model"


def test_another_model_that_is_damaged_changes_nothing(
    models_dir: ModelsDirectory, serve: Serve
) -> None:
    service = serve(models_dir.path)
    (models_dir.path / "another" / "1").mkdir(parents=True)
    service.expect_in_log("another version 1 refused: file_missing: .*")

    ready = service.http.get("/readyz")
    assert (ready.status_code, ready.json()["models_without_version"]) == (200, ["another"])
    assert service.rank(**REQUEST)["model"] == {"name": MODEL, "version": 1}
    refused = {"model": "another", "version": "1", "state": "refused"}
    assert service.metric("multirank_version_state", **refused) == 1

    shutil.rmtree(models_dir.path / "another")
    eventually(lambda: len(service.http.get("/models").json()["models"]) == 1)
    assert service.http.get("/readyz").json()["models_without_version"] == []
    assert service.metric("multirank_version_state", **refused) == 0


def test_a_model_whose_directory_is_gone_goes_on_and_says_so(
    models_dir: ModelsDirectory, serve: Serve
) -> None:
    service = serve(models_dir.path)
    away = models_dir.path.with_name("away")
    models_dir.path.rename(away)
    service.expect_in_log(f"{MODEL}: no version in .* any more .the last deployment stays.")
    assert str(models_dir.model) in service.model(MODEL)["problem"]
    assert not service.model(MODEL)["converged"]
    assert service.metric("multirank_model_problem", model=MODEL) == 1
    assert service.http.get("/readyz").status_code == 200
    assert service.rank(**REQUEST)["model"]["version"] == 1

    away.rename(models_dir.path)
    eventually(lambda: service.model(MODEL)["converged"])
    assert service.model(MODEL)["problem"] is None
    assert service.metric("multirank_model_problem", model=MODEL) == 0
