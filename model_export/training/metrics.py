"""Held-out metrics of one task, over the rows where it is defined; None where they define none.

AUC is the probability that a random positive row is scored above a random negative one, ties
counting half. GAUC (Zhu et al., "Optimized Cost per Click in Taobao Display Advertising", KDD 2017)
is the AUC within each user, weighted by the user's rows; users whose rows are all of one class have
none and are left out.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Groups = npt.NDArray[np.int64]

CALIBRATION_BINS = 15
_LEAST_PROBABILITY = 1e-7


def auc(labels: Floats, scores: Floats) -> float | None:
    """AUC of [N] rows with labels 0 or 1; None when they are all of one class."""
    return gauc(labels, scores, np.zeros(len(labels), np.int64))


def gauc(labels: Floats, scores: Floats, groups: Groups) -> float | None:
    """Row-weighted mean of the AUC of each group, all [N]; None when no group has both classes.

    The AUC of a group is its Mann-Whitney statistic: with ranks r counted within the group,
    (sum of r over positives - P (P + 1) / 2) / (P * negatives).
    """
    if not len(labels):
        return None
    order = np.lexsort((scores, groups))
    group, score, positive = groups[order], scores[order], labels[order] > 0
    new_group = np.r_[True, group[1:] != group[:-1]]
    new_value = new_group | np.r_[True, score[1:] != score[:-1]]
    starts = np.flatnonzero(new_value)
    ends = np.r_[starts[1:], len(score)]
    number = np.cumsum(new_group) - 1
    first_row = np.flatnonzero(new_group)
    tie = np.cumsum(new_value) - 1
    rank = (starts[tie] + ends[tie] + 1) / 2 - first_row[number]  # ties share their mean rank

    rows = np.bincount(number)
    positives = np.bincount(number, weights=positive)
    rank_sum = np.bincount(number, weights=rank * positive)
    both = (positives > 0) & (positives < rows)
    if not both.any():
        return None
    rows, positives, rank_sum = rows[both], positives[both], rank_sum[both]
    aucs = (rank_sum - positives * (positives + 1) / 2) / (positives * (rows - positives))
    return float(np.average(aucs, weights=rows))


def log_loss(labels: Floats, probabilities: Floats) -> float | None:
    """Mean of -log of the probability given to what happened, in nats; clipped at 1e-7."""
    if not len(labels):
        return None
    given = np.where(labels > 0.5, probabilities, 1 - probabilities.astype(np.float64))
    return float(-np.log(np.maximum(given, _LEAST_PROBABILITY)).mean())


def calibration_error(labels: Floats, probabilities: Floats) -> float | None:
    """Expected calibration error: sum_b |rows_b| / N |mean label_b - mean probability_b|.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3, over 15 bins of
    equally many rows: the probabilities of rare events would all lie in the first of equal width.
    """
    if not len(labels):
        return None
    order = np.argsort(probabilities, kind="stable")
    gap = labels[order].astype(np.float64) - probabilities[order]
    bins = np.array_split(gap, CALIBRATION_BINS)
    return float(sum(abs(float(one.sum())) for one in bins) / len(labels))


def ndcg(gains: Floats, scores: Floats, lists: Groups, k: int) -> float | None:
    """Mean NDCG@k over the lists that have several rows and a gain above 0.

    Järvelin and Kekäläinen, "Cumulated Gain-Based Evaluation of IR Techniques", TOIS 20, 2002, with
    gains as they are and the discount 1 / log2(rank + 1). Rows of one score keep their order.

    Args:
        gains: float32 [N], the labels; None is answered if one is below 0.
        scores: float32 [N].
        lists: int64 [N], the list (impression) that each row belongs to.
        k: rows of a list that count.
    """
    if not len(gains) or gains.min() < 0:
        return None
    reached, best = (_discounted(gains, by, lists, k) for by in (scores, gains))
    rows = np.bincount(np.unique(lists, return_inverse=True)[1])
    counted = (best > 0) & (rows > 1)
    return float((reached[counted] / best[counted]).mean()) if counted.any() else None


def _discounted(gains: Floats, by: Floats, lists: Groups, k: int) -> npt.NDArray[np.float64]:
    """Discounted gain of each list's first k rows, in descending order of `by`."""
    order = np.lexsort((-by, lists))
    ordered, gain = lists[order], gains[order].astype(np.float64)
    new_list = np.r_[True, ordered[1:] != ordered[:-1]]
    number = np.cumsum(new_list) - 1
    rank = np.arange(len(gain)) - np.flatnonzero(new_list)[number]
    discounted = np.where(rank < k, gain / np.log2(rank + 2), 0.0)
    return np.bincount(number, weights=discounted).astype(np.float64)
