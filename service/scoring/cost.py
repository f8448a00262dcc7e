"""The measured cost line of a run: seconds = fixed + per_row x rows."""

from __future__ import annotations

_MEMORY = 0.98
"""Weight of all earlier runs against the newest: about the last fifty count."""


class CostLine:
    """Least squares over recent runs, weighted towards the newest."""

    def __init__(self) -> None:
        self._weight = self._x = self._y = self._xx = self._xy = 0.0

    def observe(self, rows: int, seconds: float) -> None:
        """Learn from a run of `rows` rows that took `seconds`."""
        self._weight = self._weight * _MEMORY + 1.0
        self._x = self._x * _MEMORY + rows
        self._y = self._y * _MEMORY + seconds
        self._xx = self._xx * _MEMORY + rows * rows
        self._xy = self._xy * _MEMORY + rows * seconds

    def doubt(self) -> None:
        """Predict half of what was predicted.

        After a machine stood still for half a minute, no request seems to be in time any more, none
        is run, and nothing is learned: whoever refuses for that alone says so here.
        """
        self._y /= 2
        self._xy /= 2

    def predict(self, rows: int) -> float:
        """Expected seconds of a run of `rows` rows; 0 before anything was observed."""
        if self._weight == 0.0:
            return 0.0
        mean_rows, mean_seconds = self._x / self._weight, self._y / self._weight
        variance = self._xx / self._weight - mean_rows * mean_rows
        if variance < 1.0:  # all runs alike: a line through the origin is all that is known
            return mean_seconds * rows / mean_rows
        covariance = self._xy / self._weight - mean_rows * mean_seconds
        per_row = max(covariance / variance, 0.0)
        fixed = max(mean_seconds - per_row * mean_rows, 0.0)
        return fixed + per_row * rows
