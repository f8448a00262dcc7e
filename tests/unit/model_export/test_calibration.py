"""Calibration: what was bent is straight again, in the graph as in numpy, and only where asked."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from bundle import store
from model_export import config, pipeline
from model_export.calibration.methods import Isotonic, Method, Platt, fit
from model_export.calibration.outputs import CalibratedOutputs
from model_export.errors import CalibrationFailed, ConfigInvalid, RunUnusable
from model_export.models.outputs import Output, TaskOutputs
from model_export.training import run_directory
from model_export.training.held_out import HeldOut, PartName
from model_export.training.metrics import auc, calibration_error
from service.lifecycle.golden import replay
from service.metrics import Metrics
from service.scoring.stages import open_model
from tests.unit.model_export import experiments

METHODS: tuple[Method, ...] = ("platt", "isotonic")
Floats = np.ndarray[Any, np.dtype[np.float32]]


def bent(rows: int, seed: int = 0) -> tuple[Floats, Floats]:
    """Scores whose logits are 1.7 times and 0.8 off those of the true probabilities."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(-1, 1.5, rows)
    label = rng.random(rows) < 1 / (1 + np.exp(-logit))
    return (1 / (1 + np.exp(-(1.7 * logit + 0.8)))).astype(np.float32), label.astype(np.float32)


@pytest.mark.parametrize("method", METHODS)
def test_a_bent_score_is_straight_again_and_its_order_stays(method: Method) -> None:
    curve = fit(method, *bent(20_000))
    scores, labels = bent(20_000, seed=1)
    straight = curve(scores).astype(np.float32)

    before, after = (calibration_error(labels, each) for each in (scores, straight))
    assert before is not None
    assert after is not None
    assert before > 0.07
    assert after < 0.015
    assert auc(labels, straight) == pytest.approx(auc(labels, scores), abs=1e-4)


def test_platt_finds_the_line_that_bent_the_logits() -> None:
    curve = fit("platt", *bent(50_000))
    assert isinstance(curve, Platt)
    assert curve.slope == pytest.approx(1 / 1.7, rel=0.03)
    assert curve.intercept == pytest.approx(-0.8 / 1.7, abs=0.03)


def test_isotonic_has_the_blocks_of_pooled_adjacent_violators() -> None:
    scores = np.repeat(np.arange(1, 9, dtype=np.float32) / 10, 20)
    shares = (0.1, 0.3, 0.2, 0.2, 0.5, 0.4, 0.9, 0.9)
    labels = np.concatenate([np.arange(20) < round(20 * share) for share in shares])
    curve = fit("isotonic", scores.astype(np.float32), labels.astype(np.float32))
    assert isinstance(curve, Isotonic)
    # pooled: 0.1 | 0.3 0.2 0.2 | 0.5 0.4 | 0.9 0.9, at the mean score of each block
    assert curve.scores == pytest.approx((0, 0.1, 0.3, 0.55, 0.75, 1), abs=1e-6)
    assert curve.probabilities == pytest.approx((0, 0.1, 0.7 / 3, 0.45, 0.9, 1), abs=1e-6)
    reference = IsotonicRegression().fit(scores, labels).predict(scores)
    assert set(np.round(reference.astype(float), 4)) == {0.1, 0.2333, 0.45, 0.9}


@settings(max_examples=60, deadline=None)
@given(
    pairs=st.lists(
        st.tuples(st.floats(0, 1, width=32), st.integers(0, 1)), min_size=2, max_size=400
    )
)
def test_isotonic_never_falls_and_stays_a_probability(pairs: list[tuple[float, int]]) -> None:
    scores = np.array([score for score, _ in pairs], np.float32)
    labels = np.array([label for _, label in pairs], np.float32)
    try:
        curve = fit("isotonic", scores, labels)
    except CalibrationFailed:
        return
    given_scores = curve(np.linspace(0, 1, 301, dtype=np.float32))
    assert (np.diff(given_scores) >= 0).all()
    assert (given_scores[0], given_scores[-1]) == (0, 1)


@pytest.mark.parametrize("method", METHODS)
def test_rows_that_tell_nothing_are_refused(method: Method) -> None:
    scores, labels = bent(1000)
    with pytest.raises(CalibrationFailed, match="all of one class"):
        fit(method, scores, np.ones_like(labels))
    with pytest.raises(CalibrationFailed, match="do not rise with its labels"):
        fit(method, 1 - scores, labels)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shift", [0.0, -1.5])
def test_torch_computes_the_curve_that_was_fitted(method: Method, shift: float) -> None:
    curve = fit(method, *bent(5000))
    kinds = [Output.of_kind("binary"), Output.of_kind("regression"), Output.of_kind("binary")]
    outputs = TaskOutputs([Output(kinds[0].loss, logit_shift=shift), *kinds[1:]])
    calibrated = CalibratedOutputs(outputs, {0: curve})
    logits = torch.linspace(-12, 12, 600).reshape(-1, 3)
    plain, found = outputs(logits).numpy(), calibrated(logits).numpy()

    np.testing.assert_allclose(found[:, 0], curve(plain[:, 0]), atol=1e-5)
    np.testing.assert_array_equal(found[:, 1:], plain[:, 1:])


@pytest.fixture(scope="module")
def calibrated_run(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run, its scores bent so that calibration has something to do, and exported."""
    directory = tmp_path_factory.mktemp("calibrated") / "tiny"
    shutil.copytree(tiny_run, directory)
    content = experiments.tiny()
    content["tasks"][0]["calibration"] = "isotonic"
    content["tasks"][1]["calibration"] = "platt"
    changed = config.parse(content, "calibrated")
    (directory / "config.yaml").write_text(config.dump(changed))
    pipeline.export(directory)
    return directory


def test_an_exported_run_says_and_does_what_it_was_asked(
    calibrated_run: Path, exported_run: Path
) -> None:
    bundle, plain = (store.load(run / "bundle") for run in (calibrated_run, exported_run))
    assert plain.manifest.calibration == {}
    found = bundle.manifest.calibration
    assert {task: each.method for task, each in found.items()} == {
        "click": "isotonic",
        "like": "platt",
    }
    for each in found.values():
        assert (each.fitted_on, each.measured_on) == ("validation", "test")
        assert each.fitted_rows > 0
        assert each.ece_before is not None
        assert each.ece_after is not None
    # golden rows are of the calibrated scores, and the service replays them
    raw, golden = plain.golden().scores, bundle.golden().scores
    click = Isotonic(**found["click"].parameters)
    like = Platt(*(value for (value,) in found["like"].parameters.values()))
    np.testing.assert_allclose(golden[:, 0], click(raw[:, 0]), atol=2e-6)
    np.testing.assert_allclose(golden[:, 1], like(raw[:, 1]), atol=2e-6)
    np.testing.assert_array_equal(golden[:, 2], raw[:, 2])
    encoder = bundle.encoder()
    model = open_model(bundle, encoder, 1, 0, Metrics())
    replay(model, bundle.golden(), bundle.manifest.task_names)


def test_held_out_rows_are_those_of_the_data_and_of_the_network(tiny_run: Path) -> None:
    run = run_directory.read(tiny_run)
    parts: tuple[PartName, ...] = ("validation", "test")
    for part in parts:
        table = HeldOut.read(tiny_run, part).table
        assert table.num_rows == run.summary.sizes[f"{part}_rows"]
        assert {"list", "group", "score.like", "label.like", "item.price"} <= set(
            table.column_names
        )
        click, like = table.column("label.click"), table.column("label.like")
        assert like.is_valid().to_pylist() == [each == 1 for each in click.to_pylist()]
    held_out = HeldOut.read(tiny_run, "test")
    assert auc(*reversed(held_out.defined("like"))) == run.summary.test["like"]["auc"]


def test_a_run_without_held_out_rows_cannot_be_calibrated(
    calibrated_run: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "tiny"
    shutil.copytree(calibrated_run, directory)
    (directory / "test.parquet").unlink()
    with pytest.raises(RunUnusable, match=r"test\.parquet: not there; train again"):
        pipeline.export(directory)


def test_a_task_whose_rows_do_not_allow_it_is_named(calibrated_run: Path, tmp_path: Path) -> None:
    directory = tmp_path / "tiny"
    shutil.copytree(calibrated_run, directory)
    table = HeldOut.read(directory, "validation").table
    place = table.column_names.index("label.like")
    none = pa.array(np.zeros(table.num_rows, np.float32))
    HeldOut(table.set_column(place, "label.like", none)).write(directory, "validation")
    with pytest.raises(CalibrationFailed, match="tasks: like: calibration: its held-out labels"):
        pipeline.export(directory)


@pytest.mark.parametrize(("place", "serve"), [(2, True), (0, False)])
def test_only_probabilities_that_are_served_are_calibrated(place: int, serve: bool) -> None:
    content = experiments.tiny()
    content["tasks"][place] |= {"calibration": "platt", "serve": serve}
    with pytest.raises(ConfigInvalid, match="calibration: is for binary tasks that are served"):
        config.parse(content, "x")
