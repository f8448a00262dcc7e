"""Wiring: which rooms a process has, and what each is given. Nothing runs until `create_app`."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bundle.encoding import Encoder
from bundle.schema import Entity
from bundle.store import Bundle
from service.features.embedded import EmbeddedStore, load_embedded
from service.features.redis import RedisStore
from service.features.source import FeatureSource
from service.features.store import FeatureStore
from service.lifecycle.gate import Gate
from service.lifecycle.registry import Registry
from service.metrics import Metrics
from service.pipeline import Pipeline
from service.settings import Settings


@dataclass(frozen=True)
class Service:
    """The wired rooms of one process."""

    settings: Settings
    metrics: Metrics
    registry: Registry
    features: FeatureSource
    pipeline: Pipeline
    executor: ThreadPoolExecutor

    def start(self) -> None:
        """Begin to follow the feature store and the models directory."""
        self.features.start()
        self.registry.start()

    async def stop(self) -> None:
        """Close from the roof down."""
        await self.registry.stop()
        await self.features.close()
        self.executor.shutdown(wait=True)


def build(settings: Settings) -> Service:
    """Wire the rooms; nothing runs yet."""
    metrics = Metrics()
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
        features.prepare(bundle.manifest.feature_set, encoder.layouts)

    gate = Gate(
        load_features=load_features,
        executor=executor,
        threads=settings.threads,
        row_budget=settings.row_budget,
        queue_rows=settings.queue_rows,
        item_cache_bytes=settings.item_cache_bytes,
        metrics=metrics,
    )
    registry = Registry(settings.models_dir, gate, settings.poll_interval_ms / 1000, metrics)
    pipeline = Pipeline(registry, features, settings.allow_request_formula, metrics)
    return Service(settings, metrics, registry, features, pipeline, executor)


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
