"""Comparing: a share of the answered requests is scored by another version as well, and set beside.

Nobody waits for it. It runs on a thread of low priority, a request at a time; when requests queue,
or other comparisons are still under way, it is left out, and counted.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.cores import lower_priority
from service.features.source import FeatureSource
from service.fusion.compile import ranking
from service.inputs import Inputs
from service.lifecycle.comparison import TOP_K, kendall_tau, overlap
from service.lifecycle.version import LoadedVersion, Rival
from service.metrics import Metrics
from service.scoring.runs import Ended
from service.values import Query, Scores

log = logging.getLogger(__name__)

_MOST_WAITING = 2
_TIMED_EVERY = 4
_QUEUEING_S = 0.001


@dataclass(frozen=True, slots=True)
class Answered:
    """A request and what it was answered with.

    Attributes:
        fused: [N]; None where only task scores were asked for.
        weights: of the fusion.
    """

    query: Query
    inputs: Inputs
    version: LoadedVersion
    scores: Scores
    fused: npt.NDArray[np.float64] | None
    fusion: str | None
    weights: Mapping[str, float]


class Comparer:
    """Scores answered requests by the rivals of the version that answered."""

    def __init__(self, features: FeatureSource, metrics: Metrics) -> None:
        self._features = features
        self._metrics = metrics
        self._thread = ThreadPoolExecutor(1, "compare", initializer=lower_priority)
        self._waiting = 0
        self._sequence = itertools.count()
        self._fetching: set[asyncio.Task[None]] = set()

    def consider(self, answered: Answered) -> None:
        """Compare, or leave it out; returns at once."""
        for rival in answered.version.rivals:
            if random.random() >= rival.sample:
                continue
            if self._waiting >= _MOST_WAITING or answered.version.batcher.wait_s() > _QUEUEING_S:
                rival.comparison.add_shed()
                self._count(rival, "shed")
                continue
            self._waiting += 1
            task = asyncio.create_task(self._compare(answered, rival))
            self._fetching.add(task)
            task.add_done_callback(self._fetching.discard)

    async def stop(self) -> None:
        """Let go of what is under way."""
        await asyncio.gather(*self._fetching, return_exceptions=True)
        self._thread.shutdown(wait=True)

    async def _compare(self, answered: Answered, rival: Rival) -> None:
        try:
            inputs = await self._inputs(answered, rival.version)
            run = asyncio.get_running_loop().run_in_executor(
                self._thread, self._score, answered, rival, inputs
            )
            await run
            self._count(rival, "compared")
        except Exception as error:  # noqa: BLE001  # whatever it is, the rival did not score
            rival.version.ended += isinstance(error, Ended)
            if rival.is_new:
                rival.comparison.add_failure()
            self._count(rival, "failed")
            log.info(
                "%s: version %d could not score what version %d did: %s",
                rival.version.manifest.model,
                rival.version.manifest.version,
                answered.version.manifest.version,
                error,
            )
        finally:
            self._waiting -= 1

    async def _inputs(self, answered: Answered, rival: LoadedVersion) -> Inputs:
        """The request's rows as the rival reads them; fetched anew where it reads others."""
        if _reads(rival) == _reads(answered.version):
            return answered.inputs
        inputs = Inputs(answered.query, rival.encoder)
        fetched = await self._features.fetch(
            rival.manifest.feature_set,
            rival.encoder.layouts,
            answered.query.user_key,
            answered.query.item_keys,
            1.0,
        )
        inputs.complete(fetched)
        return inputs

    def _score(self, answered: Answered, rival: Rival, inputs: Inputs) -> None:
        scores, seconds = _timed(rival.version, inputs)
        if inputs.unscorable is None and not np.isfinite(scores).all():
            raise ValueError("scores that are not finite")
        stable, new = answered.version, rival.version
        pair = (answered.scores, scores)
        if not rival.is_new:
            stable, new, pair = new, stable, (pair[1], pair[0])
        tasks = rival.comparison.tasks
        columns = [
            [each.manifest.task_names.index(task) for task in tasks] for each in (stable, new)
        ]
        rival.comparison.add_scores(pair[0][:, columns[0]], pair[1][:, columns[1]])
        self._rank(answered, rival, inputs, scores)
        if next(self._sequence) % _TIMED_EVERY == 0:
            _, own = _timed(answered.version, answered.inputs)
            rival.comparison.add_seconds(*((own, seconds) if rival.is_new else (seconds, own)))

    def _rank(self, answered: Answered, rival: Rival, inputs: Inputs, scores: Scores) -> None:
        fusion = rival.version.formulas.fusions.get(answered.fusion or "")
        if answered.fused is None or fusion is None:
            return
        features = inputs.fusion_features(fusion.features_used)
        fused = fusion.evaluate(scores, answered.weights, features)
        own, other = (ranking(each)[0].tolist() for each in (answered.fused, fused))
        shared = overlap(own, other, answered.query.top_k or TOP_K)
        tau = kendall_tau(answered.fused, fused)
        rival.comparison.add_ranking(shared, tau)
        labels = rival.version.manifest.model
        self._metrics.compared_overlap.labels(labels).observe(shared)
        self._metrics.compared_tau.labels(labels).observe(tau)

    def _count(self, rival: Rival, outcome: str) -> None:
        self._metrics.compared.labels(rival.version.manifest.model, outcome).inc()


def _reads(version: LoadedVersion) -> list[object]:
    digests = [layout.digest for layout in version.encoder.layouts.values()]
    return [version.manifest.feature_set, *digests]


def _timed(version: LoadedVersion, inputs: Inputs) -> tuple[Scores, float]:
    """Task scores from raw rows, nothing of them cached; seconds of this thread's processor."""
    started = time.thread_time()
    scores = version.stages.score_afresh(*inputs.sides())
    return scores, time.thread_time() - started
