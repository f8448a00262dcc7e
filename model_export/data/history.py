"""User histories: what a person had done strictly before a moment."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def histories_before(
    people: npt.NDArray[np.int64],
    times: npt.NDArray[np.int64],
    events: Sequence[tuple[int, int, str]],
    length: int,
) -> list[list[str]]:
    """For each moment, the ids of the person's latest earlier events, most recent first.

    Args:
        people, times: int64 [U], who and when.
        events: (person, time, id), in any order. An event at the very moment is not in its
            history: what happens together must not predict itself.
        length: the most ids of a history.

    Returns:
        [U] lists of at most `length` ids.
    """
    ids: defaultdict[int, list[str]] = defaultdict(list)
    moments: defaultdict[int, list[int]] = defaultdict(list)
    for person, time, value in sorted(events, key=lambda event: event[1]):
        ids[person].append(value)
        moments[person].append(time)
    sorted_moments = {person: np.array(at, np.int64) for person, at in moments.items()}
    histories: list[list[str]] = []
    for person, time in zip(people.tolist(), times.tolist(), strict=True):
        if person not in sorted_moments:
            histories.append([])
            continue
        end = int(np.searchsorted(sorted_moments[person], time, side="left"))
        histories.append(ids[person][max(0, end - length) : end][::-1])
    return histories
