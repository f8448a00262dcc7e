"""Warm-up with what is asked for: before a version goes live it has those items' tensors.

The items that this process is asked for most; and the requests of a file of the decision log,
`models/<model>/warm_up.parquet`, if there is one.
"""

from __future__ import annotations

import itertools
import logging
import time
from pathlib import Path

import numpy as np

from bundle.encoding import Encoder
from service.decision_log.reading import LogUnreadable, read
from service.scoring.stages import Model
from service.values import Candidates, UserSide

log = logging.getLogger(__name__)

WARM_UP_FILE = "warm_up.parquet"
_MOST_REQUESTS = 1000
_MOST_S = 10.0
"""A version must not take minutes to come, however long the file and however slow the version."""
_ITEMS_AT_ONCE = 128
"""A millisecond or two of a processor, and memory that the allocator has at hand."""


def keep_items(stages: Model, items: Candidates) -> None:
    """Have the tensors of items computed and kept, few at a time: requests run beside it."""
    for start in range(0, len(items), _ITEMS_AT_ONCE):
        stages.item([items.take(slice(start, start + _ITEMS_AT_ONCE))])


def score_recorded(file: Path, stages: Model, encoder: Encoder, row_budget: int) -> int:
    """Score the requests of a file once, as many of the first thousand as ten seconds of a
    processor are enough for; returns how many.

    A file that is absent or cannot be read keeps no version out: what it warms up is slower at
    first, not wrong.

    Args:
        row_budget: most candidate rows in one run.
    """
    if not file.exists():
        return 0
    scored = 0
    ends = time.thread_time() + _MOST_S
    try:
        for recorded in itertools.islice(read(file), _MOST_REQUESTS):
            rows, _ = recorded.rows_for(encoder.layouts)
            users = UserSide(rows["user"], rows["context"])
            items = Candidates(rows["item"], encoder.layouts["item"].content_hash(rows["item"]))
            for start in range(0, len(items), row_budget):
                some = items.take(slice(start, start + row_budget))
                stages.score(users, [some], np.zeros(len(some), np.int64))
            scored += 1
            if time.thread_time() > ends:
                break
    except LogUnreadable as error:
        log.warning("no warm-up with recorded requests: %s", error)
    else:
        log.info("%s: warmed up with %d recorded requests", file, scored)
    return scored
