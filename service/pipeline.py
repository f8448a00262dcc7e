"""The way of a request, top to bottom: lease -> features -> encode -> batch -> score -> fuse."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bundle.encoding import Encoded, Encoder
from bundle.errors import ValueRejected
from bundle.rows import RowLayout, Rows
from bundle.schema import Entity
from service.errors import InvalidRequest
from service.features.source import FeatureSource, Fetched
from service.fusion.compile import CompiledFusion, compile_fusion, ranking
from service.fusion.errors import FusionError
from service.fusion.explain import contributions, ranks_without
from service.fusion.formula import adhoc_fusion
from service.lifecycle.registry import Registry
from service.lifecycle.version import LoadedVersion
from service.metrics import Metrics
from service.values import (
    Candidates,
    Degradation,
    Explanation,
    FusionChoice,
    Query,
    Ranked,
    RowCounts,
    Scored,
    Timing,
)

_EXPLAIN_METHOD = "shapley; an absent task is at its mean over the candidates"


class Pipeline:
    """Answers queries.

    Args:
        allow_formula: whether a query may bring a formula of its own.
    """

    def __init__(
        self, registry: Registry, features: FeatureSource, allow_formula: bool, metrics: Metrics
    ) -> None:
        self._registry = registry
        self._features = features
        self._allow_formula = allow_formula
        self._metrics = metrics
        self._seconds = {
            stage: metrics.stage_seconds.labels(stage)
            for stage in ("features", "queue", "score", "fuse")
        }

    async def score(self, query: Query) -> Scored:
        """Score all candidates on all tasks, in the order of the query."""
        with self._registry.lease(query.model, query.version) as version:
            inputs = _Inputs(query, version.encoder)
            return await self._score(query, version, inputs)

    async def rank(self, query: Query) -> Ranked:
        """Score, fuse and sort. The answer comes from one version and one formula."""
        with self._registry.lease(query.model, query.version) as version:
            fusion, weights = self._choose_fusion(query.fusion, version)
            inputs = _Inputs(query, version.encoder)
            scored = await self._score(query, version, inputs)
            started = time.monotonic()
            features = inputs.fusion_features(fusion.features_used)
            fused = fusion.evaluate(scored.scores, weights, features)
            order, non_finite = ranking(fused)
            if non_finite:
                self._metrics.non_finite.labels(scored.model).inc(non_finite)
                scored.degraded.reasons.append("scores_not_finite")
            explanation = None
            if query.explain:  # up to a thousand evaluations: not on the event loop
                explanation = await asyncio.to_thread(
                    self._explain, query, fusion, weights, features, scored, inputs
                )
        ended = time.monotonic()
        scored.timing.fuse_ms = (ended - started) * 1000
        scored.timing.total_ms = (ended - query.arrived) * 1000
        self._seconds["fuse"].observe(ended - started)
        return Ranked(
            scored=scored,
            fusion_name=fusion.name,
            fusion_version=fusion.version,
            fusion_weights=weights,
            order=order[: query.top_k],
            fused=fused,
            explanation=explanation,
        )

    async def _score(self, query: Query, version: LoadedVersion, inputs: _Inputs) -> Scored:
        started = time.monotonic()
        fetched = await self._features.fetch(
            version.manifest.feature_set,
            version.encoder.layouts,
            query.user_key,
            query.item_keys,
            query.deadline - started,
        )
        fetched_at = time.monotonic()
        degraded = inputs.complete(fetched, query.user_key is not None)
        users, items = inputs.encode()
        answer = await version.batcher.score(users, items, query.deadline)
        ended = time.monotonic()
        self._metrics.candidates.observe(len(query.item_ids))
        self._seconds["features"].observe(fetched_at - started)
        self._seconds["queue"].observe(answer.queue_s)
        self._seconds["score"].observe(answer.run_s)
        return Scored(
            request_id=query.request_id,
            model=version.manifest.model,
            version=version.manifest.version,
            tasks=version.manifest.task_names,
            item_ids=query.item_ids,
            scores=answer.scores,
            degraded=degraded,
            timing=Timing(
                features_ms=(fetched_at - started) * 1000,
                queue_ms=answer.queue_s * 1000,
                score_ms=answer.run_s * 1000,
                total_ms=(ended - query.arrived) * 1000,
            ),
        )

    def _choose_fusion(
        self, choice: FusionChoice, version: LoadedVersion
    ) -> tuple[CompiledFusion, Mapping[str, float]]:
        try:
            if choice.formula is None:
                fusion = version.fusions.get(choice.name)
                if fusion is None:
                    known = ", ".join(sorted(version.fusions)) or "none; publish one, or use /score"
                    raise InvalidRequest.at("fusion", f"no fusion {choice.name!r}; known: {known}")
            elif not self._allow_formula:
                raise InvalidRequest.at(
                    "fusion.formula",
                    "formulas in requests are not allowed here; the operator can set "
                    "MULTIRANK_ALLOW_REQUEST_FORMULA",
                )
            else:
                kinds = {f.key: f.kind for f in version.manifest.features.features}
                tasks = version.manifest.task_names
                fusion = compile_fusion(adhoc_fusion(choice.formula), tasks, kinds)
        except FusionError as error:
            raise InvalidRequest.at("fusion.formula", str(error)) from error
        try:
            return fusion, fusion.bind_weights(choice.weights)
        except FusionError as error:
            raise InvalidRequest.at("fusion.weights", str(error)) from error

    def _explain(
        self,
        query: Query,
        fusion: CompiledFusion,
        weights: Mapping[str, float],
        features: Mapping[str, npt.NDArray[np.float64]],
        scored: Scored,
        inputs: _Inputs,
    ) -> Explanation:
        try:
            baseline, parts = contributions(fusion, scored.scores, weights, features)
            ranks = ranks_without(fusion, scored.scores, weights, features)
        except FusionError as error:
            raise InvalidRequest.at("explain", str(error)) from error
        store = self._features.store.name
        return Explanation(
            method=_EXPLAIN_METHOD,
            baseline=np.broadcast_to(baseline, (len(query.item_ids),)),
            contributions=parts,
            ranks_without=ranks,
            user_sources={k: v[0] for k, v in inputs.sources("user", store).items()},
            context_sources={k: v[0] for k, v in inputs.sources("context", store).items()},
            item_sources=inputs.sources("item", store),
        )


class _Inputs:
    """A query's feature rows: those it brings, completed by those of the store.

    Raises:
        InvalidRequest: a feature the model does not know, or a value that does not fit.
    """

    def __init__(self, query: Query, encoder: Encoder) -> None:
        self._encoder = encoder
        self._inline: dict[Entity, Rows | None] = {
            "user": _pack(encoder.layouts["user"], "user.features", _one_row(query.user_features)),
            "context": _pack(encoder.layouts["context"], "context", _one_row(query.context)),
            "item": _pack(
                encoder.layouts["item"],
                "candidates.features",
                query.item_features,
                len(query.item_ids),
            ),
        }
        self._rows: dict[Entity, Rows] = {}
        self._content = np.zeros(0, np.uint64)

    def complete(self, fetched: Fetched, asked_user: bool) -> Degradation:
        """Lay the inline values over the stored rows; say which values are defaults.

        Args:
            asked_user: whether the user's row was asked for.
        """
        layouts = self._encoder.layouts
        context = self._inline["context"]
        if context is None:
            context = layouts["context"].empty(1)
        self._rows = {"user": fetched.users.rows, "context": context, "item": fetched.items.rows}
        whole: dict[Entity, npt.NDArray[np.bool_]] = {
            "user": fetched.users.complete,
            "context": layouts["context"].complete(context),
            "item": fetched.items.complete,
        }
        stored: tuple[Entity, Entity] = ("user", "item")
        for entity in stored:
            if (inline := self._inline[entity]) is not None:
                layouts[entity].overlay(self._rows[entity], inline)
                whole[entity] = layouts[entity].complete(self._rows[entity])
        self._content = fetched.items.content
        if self._inline["item"] is not None:
            self._content = np.zeros_like(self._content)
        found: dict[Entity, npt.NDArray[np.bool_]] = {
            "user": fetched.users.found,
            "item": fetched.items.found,
        }
        if not asked_user:
            del found["user"]
        degraded = Degradation(reasons=fetched.reasons)
        for entity, complete in whole.items():
            if not complete.all():
                in_store = found.get(entity, np.ones(1, bool))
                degraded.features[entity] = RowCounts(
                    missing=int((~in_store & ~complete).sum()), defaulted=int((~complete).sum())
                )
                degraded.reasons.append(f"{entity}_defaulted")
        return degraded

    def encode(self) -> tuple[Encoded, Candidates]:
        """The user side, encoded, and the N items, which are encoded only if they must be."""
        rows = self._rows
        users = self._encoder.user(rows["user"], rows["context"])
        return users, Candidates(rows["item"], self._content)

    def fusion_features(self, keys: Sequence[str]) -> dict[str, npt.NDArray[np.float64]]:
        """Raw numbers for a formula: item features [N], user and context features [1]."""
        numbers = {}
        for entity, rows in self._rows.items():
            for name in self._encoder.layouts[entity].slots:
                if (key := f"{entity}.{name}") in keys:
                    numbers[key] = self._encoder.raw_number(entity, name, rows)
        return numbers

    def sources(self, entity: Entity, store: str) -> dict[str, list[str]]:
        """Where each feature of each row came from: inline, default, or the store's name."""
        layout, rows = self._encoder.layouts[entity], self._rows[entity]
        source = np.where(layout.missing(rows), "default", store)
        inline = self._inline[entity]
        if inline is not None:
            source = np.where(layout.missing(inline), source, "inline")
        return dict(zip(layout.slots, source.T.tolist(), strict=True))


def _one_row(values: Mapping[str, Any]) -> dict[str, list[Any]]:
    return {name: [value] for name, value in values.items()}


def _pack(
    layout: RowLayout, loc: str, columns: Mapping[str, Sequence[Any]], count: int = 1
) -> Rows | None:
    if not columns:
        return None
    try:
        return layout.pack(columns, count)
    except ValueRejected as error:
        row = f"[{error.row}]" if layout.entity == "item" and error.row is not None else ""
        raise InvalidRequest.at(f"{loc}.{error.feature}{row}", error.reason) from error
