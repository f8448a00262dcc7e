"""Warm-up with what is asked for: before a version goes live it has those items' tensors.

The items that this process is asked for most; and the requests of a file of the decision log,
`models/<model>/warm_up.parquet`, if there is one.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Iterable
from concurrent.futures import Executor
from pathlib import Path

import numpy as np

from bundle.encoding import Encoder
from service.decision_log.reading import LogUnreadable, read
from service.lifecycle.pace import Pace
from service.lifecycle.version import LoadedVersion
from service.scoring.stages import Model
from service.values import Candidates, UserSide

log = logging.getLogger(__name__)

WARM_UP_FILE = "warm_up.parquet"
_MOST_REQUESTS = 1000
_MOST_S = 10.0
"""A version must not take minutes to come, however long the file and however slow the version."""
_HOT_ITEMS_S = 0.5
"""A busy machine takes long over them. The version then goes live; requests compute the others."""


async def keep_items(
    hot: Iterable[Candidates], version: LoadedVersion, pace: Pace, on: Executor
) -> None:
    """Have the tensors of the items computed that are asked for most, on a thread.

    Args:
        hot: a large part at a time, which hands over the interpreter's lock least.
    """

    def keep(items: Candidates) -> None:
        with pace.working():
            version.stages.item([items])

    loop = asyncio.get_running_loop()
    gives_up, kept = loop.time() + _HOT_ITEMS_S, 0
    for items in hot:
        if loop.time() > gives_up:
            named = version.manifest.model, version.manifest.version
            log.info("%s version %d: no time for more than %d hot items", *named, kept)
            break
        await loop.run_in_executor(on, keep, items)
        kept += len(items)


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
