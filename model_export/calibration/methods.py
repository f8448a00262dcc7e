"""The two methods: a curve from the score to the share of positives, fitted on held-out rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from sklearn.isotonic import isotonic_regression
from sklearn.linear_model import LogisticRegression

from model_export.errors import CalibrationFailed

Method = Literal["platt", "isotonic"]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

MOST_BINS = 64
LEAST_BIN_ROWS = 20
_LEAST_PROBABILITY = 1e-7


@dataclass(frozen=True)
class Platt:
    """probability = sigmoid(slope * logit + intercept).

    Platt, "Probabilistic Outputs for Support Vector Machines", 1999, with the logit of the score in
    the place of the margin.
    """

    slope: float
    intercept: float

    def __call__(self, scores: Floats) -> Doubles:
        """Calibrate scores [N]; what the exported graph does, in numpy."""
        return 1 / (1 + np.exp(-(self.slope * _logits(scores) + self.intercept)))


@dataclass(frozen=True)
class Isotonic:
    """A line from knot to knot; the first is at 0, the last at 1, and it never falls.

    Pool adjacent violators (Ayer et al., Annals of Mathematical Statistics 26, 1955), with a knot
    at the mean score of each block instead of steps: Oron and Flournoy, "Centered Isotonic
    Regression", Statistics in Biopharmaceutical Research 9, 2017. Steps would give a whole block
    one score, and leave its order to chance.
    """

    scores: tuple[float, ...]
    probabilities: tuple[float, ...]

    def __call__(self, scores: Floats) -> Doubles:
        """Calibrate scores [N]; what the exported graph does, in numpy."""
        curve: Doubles = np.interp(scores.astype(np.float64), self.scores, self.probabilities)
        return curve


Curve: TypeAlias = Platt | Isotonic


def of_parameters(method: Method, parameters: Mapping[str, Sequence[float]]) -> Curve:
    """The curve that a manifest describes."""
    if method == "platt":
        return Platt(**{name: value for name, (value,) in parameters.items()})
    return Isotonic(**{name: tuple(values) for name, values in parameters.items()})


def fit(method: Method, scores: Floats, labels: Floats) -> Curve:
    """Fit a curve to scores and labels (0 or 1), both [N].

    Raises:
        CalibrationFailed: the labels are all of one class, or scores do not rise with them.
    """
    if len(np.unique(labels)) < 2:
        raise CalibrationFailed("its held-out labels are all of one class")
    return _platt(scores, labels) if method == "platt" else _isotonic(scores, labels)


def _platt(scores: Floats, labels: Floats) -> Platt:
    positives = float((labels > 0).sum())
    negatives = len(labels) - positives
    # Platt's targets, a little off 1 and 0: each row counts as both classes, in these shares.
    target = np.where(labels > 0, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    logits = _logits(scores)[:, None]
    model = LogisticRegression(C=np.inf, max_iter=1000)
    model.fit(
        np.concatenate((logits, logits)),
        np.repeat((1, 0), len(labels)),
        sample_weight=np.concatenate((target, 1 - target)),
    )
    slope, intercept = float(model.coef_[0, 0]), float(model.intercept_[0])
    if slope <= 0:
        raise CalibrationFailed(f"its scores do not rise with its labels: slope {slope:.3g}")
    return Platt(slope, intercept)


def _isotonic(scores: Floats, labels: Floats) -> Isotonic:
    # Bins of equally many rows first: a block of a few rows would have a slope made of noise.
    order = np.argsort(scores, kind="stable")
    count = min(MOST_BINS, max(1, len(labels) // LEAST_BIN_ROWS))
    bins = [each for each in np.array_split(order, count) if len(each)]
    rows = np.array([len(each) for each in bins], np.float64)
    centre = np.array([scores[each].mean(dtype=np.float64) for each in bins])
    share = np.array([labels[each].mean(dtype=np.float64) for each in bins])
    fitted = isotonic_regression(share, sample_weight=rows, y_min=0.0, y_max=1.0)
    # One knot a block, at its mean score; bins of one and the same score are one block, too.
    new_block = np.r_[True, (np.diff(fitted) > 0) & (np.diff(centre) > 0)]
    block = np.cumsum(new_block) - 1
    weight = np.bincount(block, rows)
    at = np.bincount(block, rows * centre) / weight
    probability = np.bincount(block, rows * share) / weight
    if len(at) < 2:
        raise CalibrationFailed("its scores do not rise with its labels")
    inside = (at > 0) & (at < 1)
    knots = (0.0, *at[inside].tolist(), 1.0)
    return Isotonic(knots, (0.0, *probability[inside].tolist(), 1.0))


def _logits(scores: Floats) -> Doubles:
    inside = np.clip(scores.astype(np.float64), _LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)
    return np.log(inside) - np.log1p(-inside)
