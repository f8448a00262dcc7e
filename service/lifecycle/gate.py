"""The gate: what must be true of a version before a request may reach it.

verifying  files     every digest is right (bundle/store.py); manifest and directory agree
           memory    there is room for it beside the others
loading    graphs    onnxruntime opens them; inputs and outputs are those promised
           golden    raw rows encoded and scored here give the reference's scores
           formulas  every fusion of the model compiles for this version's tasks and features
           features  the store can give what it reads; beside a live version it has the rows
           of most items that are asked for (docs/decisions/0043)
warming    runs at several row counts, so that no request pays for a first time; then the
           model's recorded requests, if it has any (warm_up.py)
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np

from bundle.arrays import Golden
from bundle.encoding import Encoder
from bundle.errors import BundleError
from bundle.manifest import VOCABULARIES_FILE, Manifest
from bundle.store import Bundle, Digest, load_version
from service.lifecycle.formulas import FUSIONS_DIR, Formulas, fit, last_live
from service.lifecycle.golden import replay, uncached
from service.lifecycle.memory import estimate_bytes
from service.lifecycle.pace import Pace
from service.lifecycle.refusal import Refused
from service.lifecycle.version import LoadedVersion, State
from service.lifecycle.warm_up import WARM_UP_FILE, score_recorded
from service.metrics import Metrics
from service.scoring.batcher import Batcher
from service.scoring.runs import Runs
from service.scoring.stages import Model, open_model
from service.scoring.tensor_memory import TensorMemory
from service.values import UserSide

log = logging.getLogger(__name__)

_LEAST_KNOWN = 0.5
_WARM_UP_ROWS = (500, 1, 50)
"""The most come first: memory that these take the others find."""

FeatureLoader = Callable[[Bundle, Encoder], None]
"""Makes a new version's features known to the store, or raises."""


@dataclass(frozen=True)
class Gate:
    """Lets versions in.

    Args:
        digest: of a file, as `bundle.store.digest` gives it.
        load_features: called with each version before it goes live.
        executor: threads that inference runs on.
        threads: inside one run.
        row_budget, queue_rows: as in `Batcher`.
        item_cache_bytes: budget of each version's item tensors.
        runs: ends what does not end by itself.
        tensors: memory that the versions hand each other, and what their tensors are kept as.
    """

    digest: Digest
    load_features: FeatureLoader
    executor: Executor
    threads: int
    row_budget: int
    queue_rows: int
    item_cache_bytes: int
    metrics: Metrics
    runs: Runs
    tensors: TensorMemory = field(default_factory=TensorMemory)
    _encoders: WeakValueDictionary[tuple[str, str], Encoder] = field(
        default_factory=WeakValueDictionary, init=False
    )

    def admit(
        self,
        models: Path,
        model: str,
        version: int,
        free_bytes: int | None,
        enter: Callable[[State], None],
        pace: Pace,
    ) -> LoadedVersion:
        """Verify, load and warm up a version; blocks, so call it on a thread.

        Args:
            free_bytes: what it may occupy; None for no limit.
            enter: called with each state that it comes to.
            pace: at which the thread is working.

        Raises:
            Refused: with the first thing that is wrong.
            Ended: opening a graph, or a run of it, took too long.
        """
        enter("verifying")
        try:
            bundle = load_version(models, model, version, self.digest)
            manifest = bundle.manifest
            memory_bytes = estimate_bytes(bundle, self.item_cache_bytes)
            if free_bytes is not None and memory_bytes > free_bytes:
                raise Refused(
                    "memory_budget",
                    f"needs about {memory_bytes:,} bytes, {max(free_bytes, 0):,} of "
                    "MULTIRANK_MEMORY_BUDGET_BYTES are free",
                )
            pace.rest()
            enter("loading")
            encoder = self._encoder(bundle)
            golden = bundle.golden()
            pace.rest()
            stages = open_model(
                bundle,
                encoder,
                self.threads,
                self.item_cache_bytes,
                self.metrics,
                self.runs,
                self.tensors,
            )
        except BundleError as error:
            raise Refused(error.code, str(error)) from error
        pace.rest()
        difference = replay(stages, golden, manifest.task_names)
        if not stages.exact:
            log.info(
                "%s version %d: item tensors are kept as %s, which changes golden scores by %.2g",
                *(model, version, self.tensors.dtype, difference),
            )
        pace.rest()
        formulas = admit_formulas(models / model / FUSIONS_DIR, manifest)
        try:
            self.load_features(bundle, encoder)
        except Exception as error:
            raise Refused("features_unusable", str(error)) from error
        enter("warming")
        batcher = Batcher(
            model, stages, self.executor, self.row_budget, self.queue_rows, self.metrics
        )
        self._warm_up(stages, golden, batcher, pace)
        score_recorded(models / model / WARM_UP_FILE, stages, encoder, self.row_budget)
        return LoadedVersion(manifest, encoder, stages, batcher, formulas, memory_bytes)

    def _encoder(self, bundle: Bundle) -> Encoder:
        """Of a loaded version, if one has the same features and vocabularies; else a new one."""
        manifest = bundle.manifest
        same = manifest.features.model_dump_json(), manifest.files[VOCABULARIES_FILE].sha256
        encoder = self._encoders.get(same) or bundle.encoder()
        self._encoders[same] = encoder
        return encoder

    def _warm_up(self, stages: Model, golden: Golden, batcher: Batcher, pace: Pace) -> None:
        users = UserSide(golden.users[:1], golden.contexts[:1])
        for rows in _WARM_UP_ROWS:
            pace.rest()
            rows = min(rows, self.row_budget)
            padded = uncached(golden.items[np.arange(rows) % len(golden.items)])
            started = time.monotonic()
            stages.score(users, [padded], np.zeros(rows, np.int64))
            batcher.cost.observe(rows, time.monotonic() - started)


def refuse_unknown(asked: int, known: int) -> None:
    """See to it that the store knows the features that a version reads.

    Args:
        asked: rows of its layout that the store was asked for. known: those that it has.

    Raises:
        Refused: it has less than half of them; most requests would be answered with defaults.
    """
    if known < asked * _LEAST_KNOWN:
        raise Refused(
            "features_unknown",
            f"of the {asked:,} items that are asked for most the store has {known:,} rows as this "
            "version reads them; load them with `multirank features load`",
        )


def admit_formulas(directory: Path, manifest: Manifest) -> Formulas:
    """The formulas of a version that is about to be let in.

    Raises:
        Refused: a file is wrong, or names a task or feature that the version lacks, and so does
            what was live before it.
    """
    fitted = fit(directory, [(manifest, last_live(directory, manifest))])
    (formulas,) = fitted.formulas
    for name, reason in fitted.refused.items():
        if name not in formulas.versions():
            raise Refused("fusion_invalid", reason)
    return formulas
