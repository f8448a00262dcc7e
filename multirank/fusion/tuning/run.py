"""The held-out rows of a run directory, with the scores that its bundle serves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from multirank.fusion.errors import FusionCommandError
from multirank.fusion.tuning.labelled import Labelled, calibrated, read_labelled


def read_run(run: Path) -> tuple[Labelled, Labelled]:
    """The validation part and the test part; calibrated, if the bundle of the run is.

    Raises:
        FusionCommandError: the run has no held-out rows, or is not exported.
    """
    from model_export.calibration.methods import of_parameters

    file = run / "bundle" / "manifest.json"
    try:
        manifest: Any = json.loads(file.read_bytes())
    except OSError as error:
        raise FusionCommandError(f"{file}: {error.strerror}; export the run first") from error
    served = [task["name"] for task in manifest["tasks"]]
    curves = {
        task: of_parameters(each["method"], each["parameters"])
        for task, each in manifest["calibration"].items()
    }
    validation, test = (
        calibrated(_only(read_labelled(run / f"{part}.parquet"), served), curves)
        for part in ("validation", "test")
    )
    return validation, test


def _only(labelled: Labelled, tasks: list[str]) -> Labelled:
    """The rows with the scores of served tasks alone; labels of the others stay."""
    columns = [labelled.tasks.index(task) for task in tasks]
    return Labelled(
        **{**vars(labelled), "tasks": tuple(tasks), "scores": labelled.scores[:, columns]}
    )
