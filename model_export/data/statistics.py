"""Statistics of a column, taken chunk by chunk, each value weighted by the rows that use it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bundle.packing import hash_value

Counts = npt.NDArray[np.int64]

SAMPLED_ROWS = 200_000
"""Quantiles of more values than this are those of a random sample of so many."""


class NothingFit:
    """For features of which nothing is fitted."""

    def add(self, values: Sequence[Any], counts: Counts) -> None:
        """Nothing."""


class VocabularyFit:
    """The values of a categorical or a list, most frequent first.

    Args:
        is_list: whether a value is a list of ids. A list counts an id once.
        min_count: training rows that a value must be in.
    """

    def __init__(self, is_list: bool, min_count: int) -> None:
        self._is_list, self._min_count = is_list, min_count
        self._rows: Counter[int] = Counter()

    def add(self, values: Sequence[Any], counts: Counts) -> None:
        """Count a chunk's values.

        Raises:
            TypeError: a value is no id.
        """
        for value, count in _used(values, counts):
            for hashed in {hash_value(one) for one in (value if self._is_list else (value,))}:
                self._rows[hashed] += count

    def hashes(self) -> npt.NDArray[np.uint64]:
        """The hashes of the values that are frequent enough.

        Raises:
            ValueError: none is.
        """
        # Ties are ordered by hash, so that the indices do not depend on the order of the data.
        frequent = [(-n, hashed) for hashed, n in self._rows.items() if n >= self._min_count]
        if not frequent:
            if self._min_count > 1:
                raise ValueError(f"no value is in {self._min_count} training rows or more")
            raise ValueError("no value in the training rows")
        return np.array([hashed for _, hashed in sorted(frequent)], np.uint64)


class NumberFit:
    """Mean and deviation of a column of numbers, and its quantiles if need be.

    Args:
        sampled: whether quantiles will be asked for, which takes memory for a sample.
    """

    def __init__(self, sampled: bool) -> None:
        self._sampled = sampled
        self._rng = np.random.default_rng(0)
        self._weight, self._mean, self._squares = 0.0, 0.0, 0.0
        self._numbers, self._weights, self._draws = np.zeros((3, 0))

    def add(self, values: Sequence[Any], counts: Counts) -> None:
        """Take a chunk's values.

        Raises:
            ValueError: NaN or infinity; TypeError: a value is no number.
        """
        used = list(_used(values, counts))
        if not used:
            return
        numbers = np.array([value for value, _ in used], np.float64)
        weights = np.array([count for _, count in used], np.float64)
        if not np.isfinite(numbers).all():
            raise ValueError("NaN or infinity in the training rows")
        # Chan et al., "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances".
        mean, weight = float(np.average(numbers, weights=weights)), float(weights.sum())
        total, apart = self._weight + weight, mean - self._mean
        self._squares += float(np.dot(weights, (numbers - mean) ** 2))
        self._squares += apart**2 * self._weight * weight / total
        self._mean = mean if not self._weight else self._mean + apart * weight / total
        self._weight = total
        if self._sampled:
            self._sample(numbers, weights)

    def mean_and_deviation(self) -> tuple[float, float]:
        """Of all values.

        Raises:
            ValueError: there is none.
        """
        if not self._weight:
            raise ValueError("no value in the training rows")
        return self._mean, float(np.sqrt(self._squares / self._weight))

    def quantiles(self, at: Sequence[float]) -> list[float]:
        """The distinct quantiles at these shares, ascending."""
        found = np.quantile(self._numbers, at, weights=self._weights, method="inverted_cdf")
        return [float(number) for number in np.unique(found)]

    def _sample(self, numbers: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]) -> None:
        """Keep all values, or the ones with the smallest of random draws."""
        draws = self._rng.random(len(numbers))
        self._numbers = np.concatenate((self._numbers, numbers))
        self._weights = np.concatenate((self._weights, weights))
        self._draws = np.concatenate((self._draws, draws))
        if len(self._draws) > SAMPLED_ROWS:
            kept = np.argpartition(self._draws, SAMPLED_ROWS)[:SAMPLED_ROWS]
            self._numbers, self._weights = self._numbers[kept], self._weights[kept]
            self._draws = self._draws[kept]


def _used(values: Sequence[Any], counts: Counts) -> Iterator[tuple[Any, int]]:
    """Each present value that a training row uses, with the number of those rows."""
    for value, count in zip(values, counts.tolist(), strict=True):
        if count and value is not None:
            yield value, count
