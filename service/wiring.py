"""Wiring: which rooms a process has, and what each is given. Nothing runs until `create_app`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bundle.encoding import Encoder
from bundle.schema import Entity
from bundle.stages import SingleStage
from bundle.store import Bundle
from service.comparing import Comparer
from service.cores import share_interpreter, usable_cores
from service.decision_log.log import DecisionLog, LogOptions
from service.features.embedded import EmbeddedStore, load_embedded
from service.features.redis import RedisStore
from service.features.source import FeatureSource
from service.features.store import FeatureStore
from service.lifecycle.bell import Bell
from service.lifecycle.board import Board
from service.lifecycle.digests import Digests
from service.lifecycle.follower import Follower
from service.lifecycle.gate import Gate, refuse_unknown
from service.lifecycle.loader import Loader
from service.lifecycle.plan import Plan
from service.lifecycle.registry import Registry
from service.lifecycle.turn import Turn
from service.lifecycle.version import LoadedVersion
from service.metrics import Metrics
from service.pipeline import Pipeline
from service.scoring.runs import RUN_S, Runs
from service.scoring.tensor_memory import TensorMemory
from service.settings import Settings
from service.values import Candidates
from service.worker import Worker

_ANNOUNCE_EVERY_S = 0.2


@dataclass(frozen=True)
class Service:
    """The wired rooms of one process."""

    settings: Settings
    worker: Worker
    metrics: Metrics
    registry: Registry
    follower: Follower
    board: Board
    digests: Digests
    features: FeatureSource
    comparer: Comparer
    runs: Runs
    pipeline: Pipeline
    decisions: DecisionLog | None
    executor: ThreadPoolExecutor

    def start(self) -> None:
        """Begin to follow the feature store and the models directory."""
        share_interpreter()
        if self.decisions is not None:
            self.decisions.start()
        self.runs.start()
        self.features.start()
        self.follower.start()

    @property
    def ready(self) -> bool:
        """Whether requests may come: all that was there at the start is served or refused.

        A model whose versions are all bad keeps nobody from the others (docs/decisions/0046).
        """
        return self.follower.looked.is_set() and self.registry.ready

    @property
    def may_accept(self) -> asyncio.Event | None:
        """Set once connections may come, where another answers until then; None: at once."""
        beside = self.worker.replaces or self.settings.reuse_port
        return self.follower.looked if beside else None

    @asynccontextmanager
    async def beside_others(self) -> AsyncIterator[None]:
        """Keep the other workers informed for the length of the block."""
        announcing = asyncio.create_task(self._announce())
        try:
            yield
        finally:
            announcing.cancel()
            with suppress(asyncio.CancelledError):
                await announcing

    async def _announce(self) -> None:
        await self.follower.looked.wait()
        while self.worker.run_dir is not None:
            self.worker.announce(self.ready)
            await asyncio.sleep(_ANNOUNCE_EVERY_S)

    async def stop(self) -> None:
        """Close from the roof down; requests have been answered."""
        self.runs.close()
        await self.follower.stop()
        await self.comparer.stop()
        await self.features.close()
        if self.decisions is not None:
            await asyncio.to_thread(self.decisions.close)
        self.executor.shutdown(wait=True)


def build(settings: Settings, worker: Worker) -> Service:
    """Wire the rooms; nothing runs yet."""
    metrics = Metrics(worker)
    executor = ThreadPoolExecutor(1, thread_name_prefix="infer")
    store, load_rows = _feature_store(settings)
    features = FeatureSource(
        store,
        settings.feature_timeout_ms / 1000,
        settings.feature_failures,
        settings.feature_cache_bytes,
        settings.feature_ttl_s,
        settings.feature_stale_s,
        metrics,
    )

    def load_features(bundle: Bundle, encoder: Encoder) -> None:
        load_rows(bundle, encoder)
        features.caches.prepare(bundle.manifest.feature_set, encoder.layouts)

    async def read_ahead(version: LoadedVersion) -> None:
        manifest = version.manifest
        refuse_unknown(*await features.read_ahead(manifest.feature_set, version.encoder.layouts))

    def hot_items(version: LoadedVersion) -> Iterator[Candidates]:
        manifest, layout = version.manifest, version.encoder.layouts["item"]
        if not isinstance(manifest.stages, SingleStage):  # which keeps no item tensors
            yield from features.caches.hot_items(manifest.feature_set, layout, settings.row_budget)

    digests = Digests(worker)
    runs = Runs(max(RUN_S, settings.timeout_ms / 1000))
    gate = Gate(
        digest=digests,
        load_features=load_features,
        executor=executor,
        threads=settings.threads or max(1, usable_cores() // worker.count),
        row_budget=settings.row_budget,
        queue_rows=settings.queue_rows,
        item_cache_bytes=settings.item_cache_bytes,
        metrics=metrics,
        runs=runs,
        tensors=TensorMemory(settings.item_cache_type),
    )
    board = Board(worker, settings.poll_interval_ms / 1000)
    registry = Registry(metrics, lambda closed: loader.release(closed))
    plan = Plan(settings.models_dir, registry)
    loader = Loader(
        settings.models_dir,
        registry,
        gate,
        plan,
        settings.memory_budget_bytes,
        Turn(worker),
        read_ahead,
        hot_items,
    )
    follower = Follower(
        settings.models_dir,
        registry,
        plan,
        loader,
        settings.poll_interval_ms / 1000,
        metrics,
        board,
        Bell(worker),
    )
    comparer = Comparer(features, metrics)
    decisions = _decision_log(settings, worker, metrics)
    pipeline = Pipeline(
        registry, features, comparer, settings.allow_request_formula, decisions, metrics
    )
    return Service(
        settings,
        worker,
        metrics,
        registry,
        follower,
        board,
        digests,
        features,
        comparer,
        runs,
        pipeline,
        decisions,
        executor,
    )


def _decision_log(settings: Settings, worker: Worker, metrics: Metrics) -> DecisionLog | None:
    if settings.decision_log_dir is None:
        return None
    options = LogOptions(
        directory=settings.decision_log_dir,
        rate=settings.decision_log_rate,
        file_bytes=settings.decision_log_file_bytes,
        file_s=settings.decision_log_file_s,
        total_bytes=settings.decision_log_bytes,
    )
    return DecisionLog(options, worker.index, metrics)


def _feature_store(
    settings: Settings,
) -> tuple[FeatureStore, Callable[[Bundle, Encoder], None]]:
    if settings.redis_url is not None:
        timeout_s = max(1.0, settings.feature_timeout_ms / 1000)
        return RedisStore(settings.redis_url, timeout_s), lambda bundle, encoder: None
    embedded = EmbeddedStore()
    files: dict[Entity, Path | None] = {
        "user": settings.user_features_file,
        "item": settings.item_features_file,
    }
    return embedded, lambda bundle, encoder: load_embedded(embedded, bundle, encoder, files)
