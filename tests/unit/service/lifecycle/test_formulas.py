"""Formulas and rules of several versions at once: all or none, and neighbours unharmed."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundle.manifest import Manifest
from bundle.store import load
from service.lifecycle.formulas import Fitted, Formulas, fit, last_live, note
from tests.unit.bundle.tiny import write_bundle


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Manifest]:
    """Two versions: one has the task `like`, the other `share` in its place."""
    directory = tmp_path_factory.mktemp("formulas")
    tasks = {"like": ("click", "like"), "share": ("click", "share")}
    return {
        name: load(write_bundle(directory / name, tasks=each)).manifest
        for name, each in tasks.items()
    }


def write(directory: Path, **files: str) -> None:
    directory.mkdir(exist_ok=True)
    for name, text in files.items():
        (directory / f"{name}.yaml").write_text(text)


def fitted(directory: Path, before: Formulas, *manifests: Manifest) -> Fitted:
    return fit(directory, [(manifest, before) for manifest in manifests])


def names(formulas: Formulas) -> dict[str, str]:
    return {name: str(fusion.program.steps) for name, fusion in formulas.fusions.items()}


def test_a_formula_goes_live_for_all_versions_or_for_none(
    tmp_path: Path, manifests: dict[str, Manifest]
) -> None:
    both = manifests["like"], manifests["share"]
    write(tmp_path, default="formula: click\n", other="formula: click * 2\n")
    first = fitted(tmp_path, Formulas(), *both)
    assert first.refused == {}
    assert [each.versions() for each in first.formulas] == [first.formulas[0].versions()] * 2

    write(tmp_path, default="formula: click * like\n", other="formula: click * 3\n")
    second = fitted(tmp_path, first.formulas[0], *both)
    assert list(second.refused) == ["default"]
    assert "default.yaml:1:18: unknown name 'like'" in second.refused["default"]
    for before, after in zip(first.formulas, second.formulas, strict=True):
        assert after.versions()["default"] == before.versions()["default"]
        assert after.versions()["other"] != before.versions()["other"]

    alone = fitted(tmp_path, first.formulas[0], manifests["like"])
    assert alone.refused == {}
    assert alone.formulas[0].versions()["default"] != first.formulas[0].versions()["default"]


def test_a_broken_file_harms_neither_neighbours_nor_what_was_live(
    tmp_path: Path, manifests: dict[str, Manifest]
) -> None:
    write(tmp_path, default="formula: click\n")
    before = fitted(tmp_path, Formulas(), manifests["like"]).formulas[0]
    write(tmp_path, default="formula: [", heir="inherits: default\n", new="formula: like\n")
    (tmp_path / "folder.yaml").mkdir()
    after = fitted(tmp_path, before, manifests["like"])
    assert after.formulas[0].fusions.keys() == {"default", "new"}
    assert after.formulas[0].fusions["default"] is before.fusions["default"]
    assert after.refused.keys() == {"default", "heir", "folder"}
    assert after.refused["heir"].startswith("default.yaml:1:10: ")
    assert after.accepted.keys() == {"new"}


def test_a_file_that_goes_takes_its_fusion_along(
    tmp_path: Path, manifests: dict[str, Manifest]
) -> None:
    write(tmp_path, default="formula: click\n", other="formula: like\n")
    before = fitted(tmp_path, Formulas(), manifests["like"]).formulas[0]
    (tmp_path / "other.yaml").unlink()
    after = fitted(tmp_path, before, manifests["like"])
    assert after.formulas[0].fusions.keys() == {"default"}
    assert after.refused == {}


RULES = "rules: {late: {when: context.hour > 20, fusion: other}}\n"


def test_rules_that_do_not_fit_leave_the_old_ones_while_they_can(
    tmp_path: Path, manifests: dict[str, Manifest]
) -> None:
    write(tmp_path, default="formula: click\n", other="formula: like\n", rules=RULES)
    before = fitted(tmp_path, Formulas(), manifests["like"]).formulas[0]
    assert before.rules is not None
    assert before.versions().keys() == {"default", "other", "rules"}

    write(tmp_path, rules=RULES.replace("hour", "our"))
    wrong = fitted(tmp_path, before, manifests["like"])
    assert wrong.formulas[0].rules is before.rules
    assert "unknown name 'context.our'" in wrong.refused["rules"]

    (tmp_path / "other.yaml").unlink()
    gone = fitted(tmp_path, before, manifests["like"])
    assert gone.formulas[0].rules is None
    assert "rules" in gone.refused


def test_what_was_live_last_stands_in_for_a_broken_file_at_a_start(
    tmp_path: Path, manifests: dict[str, Manifest]
) -> None:
    write(tmp_path, default="formula: click\n", other="formula: like\n", rules=RULES)
    live = fitted(tmp_path, Formulas(), manifests["like"])
    note(tmp_path, live.accepted)
    write(tmp_path, default="formula: [", rules="rules: 5")

    known = last_live(tmp_path, manifests["like"])
    assert known.versions() == live.formulas[0].versions()
    started = fitted(tmp_path, known, manifests["like"])
    assert started.formulas[0].versions() == live.formulas[0].versions()
    assert started.refused.keys() == {"default", "rules"}

    fits_less = last_live(tmp_path, manifests["share"])
    assert fits_less.versions().keys() == {"default"}


def test_a_directory_that_cannot_be_written_has_no_history(
    tmp_path: Path, manifests: dict[str, Manifest], caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, default="formula: click\n")
    (tmp_path / ".history").write_text("in the way")
    note(tmp_path, fitted(tmp_path, Formulas(), manifests["like"]).accepted)
    assert "the history is not kept" in caplog.text


def test_a_model_without_formulas(tmp_path: Path, manifests: dict[str, Manifest]) -> None:
    nothing = fitted(tmp_path / "none", Formulas(), manifests["like"])
    assert nothing.formulas[0].versions() == {}
    assert last_live(tmp_path / "none", manifests["like"]).versions() == {}
