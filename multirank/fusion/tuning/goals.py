"""What is searched for: a metric to maximise, and others that must be kept.

ndcg@10(like)          gain is the label; rows on which the task is not defined gain nothing
auc(watch)             over all rows on which the task is defined
gauc(watch)            the same within each person, averaged by rows

gauc(watch)>=99%       at least 99 % of what the baseline reaches
auc(watch)>=0.8        at least 0.8
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from model_export.training import metrics
from multirank.fusion.errors import FusionCommandError
from multirank.fusion.tuning.labelled import Array, Labelled

_METRIC = re.compile(r"(?:(auc|gauc)|ndcg@([1-9]\d{0,5}))\((\w+)\)")
_KEPT = re.compile(r"(.+)>=([0-9.]+)(%?)")


@dataclass(frozen=True)
class Metric:
    """A metric of a ranking, larger is better.

    Attributes:
        text: as it was written.
        kind: auc, gauc or ndcg.
        task: whose labels say what is good.
        k: rows of a list that count, for ndcg.
    """

    text: str
    kind: str
    task: str
    k: int = 0

    @classmethod
    def parse(cls, text: str) -> Metric:
        """`ndcg@10(like)`, `auc(watch)` or `gauc(watch)`.

        Raises:
            FusionCommandError: something else.
        """
        found = _METRIC.fullmatch(text.replace(" ", ""))
        if found is None:
            raise FusionCommandError(
                f"{text}: not a metric; write ndcg@K(TASK), auc(TASK) or gauc(TASK)"
            )
        kind, k, task = found.groups()
        return cls(found.group(), kind or "ndcg", task, int(k or 0))

    def on(self, labelled: Labelled) -> Measure:
        """The metric on some rankings.

        Raises:
            FusionCommandError: they have no label for it, or labels of one class only.
        """
        label = labelled.labels.get(self.task)
        if label is None:
            known = ", ".join(labelled.labels)
            raise FusionCommandError(
                f"{self.text}: {labelled.source} has no label.{self.task}; it has {known}"
            )
        measure = Measure(self, labelled, label)
        if measure(np.arange(len(labelled), dtype=np.float64)) is None:
            raise FusionCommandError(f"{self.text}: the labels of {labelled.source} define none")
        return measure


class Measure:
    """A metric on some rankings: fused scores -> value. What does not change is done before."""

    def __init__(self, metric: Metric, labelled: Labelled, label: Array) -> None:
        self._metric = metric
        if metric.kind == "ndcg":
            gains = np.nan_to_num(label, nan=0.0)
            best = np.maximum.reduceat(gains, starts := _starts(labelled.lists))
            lengths = np.diff([*starts, len(gains)])
            self._rows = np.flatnonzero(np.repeat(best > 0, lengths))  # others are not counted
            label = gains
        else:
            self._rows = np.flatnonzero(~np.isnan(label))
        self._label = label[self._rows]
        self._lists = labelled.lists[self._rows]
        self._groups = labelled.groups[self._rows]

    def __call__(self, fused: Array) -> float | None:
        """The value for fused scores float64 [N]; those that are not finite come last."""
        score = fused[self._rows]
        score = np.where(np.isfinite(score), score, -np.inf)
        if self._metric.kind == "ndcg":
            return metrics.ndcg(self._label, score, self._lists, self._metric.k)
        if self._metric.kind == "gauc":
            return metrics.gauc(self._label, score, self._groups)
        return metrics.auc(self._label, score)


@dataclass(frozen=True)
class Kept:
    """A metric that must not fall below a limit, absolute or a share of the baseline's."""

    metric: Metric
    limit: float
    relative: bool

    @classmethod
    def parse(cls, text: str) -> Kept:
        """`gauc(watch)>=99%` or `auc(watch)>=0.8`.

        Raises:
            FusionCommandError: something else.
        """
        found = _KEPT.fullmatch(text.replace(" ", ""))
        if found is None:
            raise FusionCommandError(f"{text}: expected METRIC>=99% or METRIC>=0.8")
        metric, limit, percent = found.groups()
        try:
            value = float(limit)
        except ValueError:
            raise FusionCommandError(f"{text}: {limit} is no number") from None
        return cls(Metric.parse(metric), value / 100 if percent else value, bool(percent))

    def floor(self, baseline: float) -> float:
        """The least value allowed, where the baseline reaches `baseline`."""
        return self.limit * baseline if self.relative else self.limit

    @property
    def text(self) -> str:
        """As it was written."""
        limit = f"{self.limit * 100:g}%" if self.relative else f"{self.limit:g}"
        return f"{self.metric.text}>={limit}"


def _starts(lists: Array) -> Array:
    return np.flatnonzero(np.r_[True, lists[1:] != lists[:-1]])
