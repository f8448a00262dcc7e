"""A formula's file changes on disk: the new formula is used soon, a broken one never."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Serve
from tests.e2e.asking import CONTEXT, IDS, REQUEST, USER, scores_of
from tests.e2e.damages import bring, without_the_task
from tests.published import MODEL, ModelsDirectory, fused
from tests.servers import Service, eventually

SOON_S = 5.0
BROKEN = {
    "not YAML": ("formula: [click", r"default\.yaml:1:\d+: "),
    "a name that is no task": ("formula: clik * 2", r"unknown name 'clik'; did you mean 'click'"),
    "no formula": ("description: empty", r"'formula' is missing"),
    "empty": ("", r"default\.yaml"),
    "not closed": ("formula: click * (1 + like", r"default\.yaml:1:"),
    "a field that is none": ("formula: click\nweight: {w: 1}", r"unknown field 'weight'"),
}


def write(path: Path, text: str) -> None:
    """Replace a file as careful editors do: at once."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    new.replace(path)


def fusion_of(service: Service) -> str:
    """The version of the formula that an answer names."""
    version: str = service.rank(**REQUEST)["fusion"]["version"]
    return version


def check_scores(service: Service, wanted: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
    """The ranking must be that of the formula's scores."""
    scores = scores_of(service.rank(**REQUEST))
    np.testing.assert_allclose(scores, np.sort(wanted)[::-1], rtol=1e-5, atol=1e-5)


def test_a_new_formula_is_used_soon(models_dir: ModelsDirectory, serve: Serve) -> None:
    service = serve(models_dir.path, poll_interval_ms=500)  # the default
    old = fusion_of(service)
    write(models_dir.fusion, "formula: like - click")

    eventually(lambda: fusion_of(service) != old, SOON_S)
    click, like, _ = models_dir.expected(1).scores(USER, IDS, CONTEXT).astype(np.float64).T
    check_scores(service, like - click)
    assert service.model(MODEL)["fusions"] == {"default": fusion_of(service)}
    assert service.model(MODEL)["versions"][0]["version"] == 1


def test_a_second_formula_appears_and_goes(models_dir: ModelsDirectory, serve: Serve) -> None:
    service = serve(models_dir.path)
    second = models_dir.fusion.with_name("likes.yaml")
    write(second, "inherits: default\nformula: like")
    eventually(lambda: "likes" in service.model(MODEL)["fusions"])
    assert service.rank(**REQUEST, fusion="likes")["fusion"]["name"] == "likes"

    second.unlink()
    eventually(lambda: "likes" not in service.model(MODEL)["fusions"])
    assert service.http.post("/rank", json=REQUEST | {"fusion": "likes"}).status_code == 422


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_formula_leaves_the_old_one(
    models_dir: ModelsDirectory, serve: Serve, name: str
) -> None:
    service = serve(models_dir.path)
    old, (text, says) = fusion_of(service), BROKEN[name]
    expected = models_dir.expected(1).scores(USER, IDS, CONTEXT)
    write(models_dir.fusion, text)

    service.expect_in_log(rf"fusion default refused \(\w+ stays\): .*{says}")
    assert fusion_of(service) == old
    check_scores(service, fused(expected))
    assert service.model(MODEL)["fusions"] == {"default": old}
    refused = eventually(lambda: service.model(MODEL)["fusions_refused"])
    assert re.search(says, refused["default"])
    labels = {"model": MODEL, "fusion": "default"}
    assert service.metric("multirank_fusions_refused_total", **labels) == 1

    write(models_dir.fusion, "formula: click")
    eventually(lambda: fusion_of(service) != old)
    check_scores(service, expected[:, 0])
    eventually(lambda: service.model(MODEL)["fusions_refused"] == {})


def test_files_that_an_editor_leaves_do_no_harm(models_dir: ModelsDirectory, serve: Serve) -> None:
    service = serve(models_dir.path)
    old = fusion_of(service)
    models_dir.fusion.with_name(".#default.yaml").symlink_to("me@host.1234")  # as emacs locks
    models_dir.fusion.with_name("default.yaml~").write_text("formula: [")
    os.utime(models_dir.fusion)
    write(models_dir.fusion, "formula: click")

    eventually(lambda: fusion_of(service) != old, SOON_S)


def test_a_formula_that_is_linked_in_is_followed(
    models_dir: ModelsDirectory, serve: Serve, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "formula.yaml"
    elsewhere.write_text("formula: like")
    models_dir.fusion.unlink()
    models_dir.fusion.symlink_to(elsewhere)
    service = serve(models_dir.path)
    old = fusion_of(service)

    elsewhere.write_text("formula: click * like")
    eventually(lambda: fusion_of(service) != old, SOON_S)


def test_a_version_refused_for_its_formula_is_let_in_once_the_formula_fits(
    models_dir: ModelsDirectory, serve: Serve
) -> None:
    service = serve(models_dir.path)
    version = bring(models_dir, without_the_task)
    service.expect_in_log(f"version {version} refused: fusion_invalid: .*")

    write(models_dir.fusion, "formula: click")  # which both versions have
    eventually(lambda: service.rank(**REQUEST)["model"]["version"] == version)


def test_after_a_start_with_a_broken_formula_the_last_one_goes_on(
    models_dir: ModelsDirectory, serve: Serve
) -> None:
    history = models_dir.fusion.parent / ".history" / "default.jsonl"
    first = serve(models_dir.path)
    eventually(history.exists)
    live = fusion_of(first)
    write(models_dir.fusion, "formula: [click")
    first.expect_in_log("fusion default refused")

    second = serve(models_dir.path)
    assert fusion_of(second) == live
    second.expect_in_log(rf"fusion default refused \({live} stays\): default.yaml:1:")


def test_a_model_without_formulas_is_scored_but_not_ranked(
    models_dir: ModelsDirectory, serve: Serve
) -> None:
    models_dir.fusion.unlink()
    models_dir.fusion.parent.rmdir()
    service = serve(models_dir.path)

    service.ask("/score", REQUEST)
    answer = service.http.post("/rank", json=REQUEST)
    assert answer.status_code == 422
    assert "/score" in answer.json()["detail"]
