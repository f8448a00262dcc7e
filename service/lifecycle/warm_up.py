"""Warm-up with recorded requests: before a version goes live it has their items' tensors.

They are a file of the decision log, `models/<model>/warm_up.parquet`, if there is one.
"""

from __future__ import annotations

import itertools
import logging
from pathlib import Path

import numpy as np

from bundle.encoding import Encoder
from service.decision_log.reading import LogUnreadable, read
from service.scoring.stages import Model
from service.values import Candidates, UserSide

log = logging.getLogger(__name__)

WARM_UP_FILE = "warm_up.parquet"
_MOST_REQUESTS = 1000
"""A version must not take minutes to come, however long the file."""


def score_recorded(file: Path, stages: Model, encoder: Encoder, row_budget: int) -> int:
    """Score the requests of a file once, the first thousand of them; returns how many.

    A file that is absent or cannot be read keeps no version out: what it warms up is slower at
    first, not wrong.

    Args:
        row_budget: most candidate rows in one run.
    """
    if not file.exists():
        return 0
    scored = 0
    try:
        for recorded in itertools.islice(read(file), _MOST_REQUESTS):
            rows, _ = recorded.rows_for(encoder.layouts)
            users = UserSide(rows["user"], rows["context"])
            items = Candidates(rows["item"], encoder.layouts["item"].content_hash(rows["item"]))
            for start in range(0, len(items), row_budget):
                some = items.take(slice(start, start + row_budget))
                stages.score(users, [some], np.zeros(len(some), np.int64))
            scored += 1
    except LogUnreadable as error:
        log.warning("no warm-up with recorded requests: %s", error)
    else:
        log.info("%s: warmed up with %d recorded requests", file, scored)
    return scored
