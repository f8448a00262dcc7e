"""Fitting the calibration of a finished run: on its validation part, measured on its test part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from bundle.manifest import Calibration
from model_export.calibration.methods import Curve, fit
from model_export.data.tasks import TaskDeclaration
from model_export.errors import CalibrationFailed
from model_export.training.held_out import HeldOut
from model_export.training.metrics import CALIBRATION_BINS, calibration_error


def fit_calibration(
    tasks: tuple[TaskDeclaration, ...], run: Path
) -> Mapping[int, tuple[Curve, Calibration]]:
    """Fit what the tasks of a run ask for.

    The validation part chose the epoch, so its scores are a little too good; the errors are
    therefore those of the test part, which nothing was chosen by.

    Returns:
        By the task's place: its curve, and what the manifest says of it.

    Raises:
        CalibrationFailed: a task's held-out rows do not allow it; RunUnusable: there are none.
    """
    wanted = {place: task for place, task in enumerate(tasks) if task.calibration != "none"}
    if not wanted:
        return {}
    validation, test = (HeldOut.read(run, part) for part in ("validation", "test"))
    found: dict[int, tuple[Curve, Calibration]] = {}
    for place, task in wanted.items():
        assert task.calibration != "none"  # by `wanted`
        scores, labels = validation.defined(task.name)
        try:
            curve = fit(task.calibration, scores, labels)
        except CalibrationFailed as error:
            raise CalibrationFailed(f"tasks: {task.name}: calibration: {error}") from error
        test_scores, test_labels = test.defined(task.name)
        described = Calibration(
            method=task.calibration,
            parameters={
                name: value if isinstance(value, tuple) else (value,)
                for name, value in asdict(curve).items()
            },
            fitted_on="validation",
            fitted_rows=len(scores),
            measured_on="test",
            measured_rows=len(test_scores),
            bins=f"{CALIBRATION_BINS} of equally many rows",
            ece_before=calibration_error(test_labels, test_scores),
            ece_after=calibration_error(test_labels, curve(test_scores).astype("float32")),
        )
        found[place] = curve, described
    return found
