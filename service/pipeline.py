"""The way of a request, top to bottom: lease -> features -> encode -> batch -> score -> fuse."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from bundle.manifest import Manifest
from service.comparing import Answered, Comparer
from service.decision_log.log import DecisionLog
from service.errors import InvalidRequest, TooManyCandidates
from service.features.source import FeatureSource
from service.fusion.compile import CompiledFusion, compile_fusion, ranking
from service.fusion.errors import FusionError
from service.fusion.explain import contributions, ranks_without
from service.fusion.formula import adhoc_fusion
from service.fusion.rules import DEFAULT
from service.inputs import Inputs
from service.lifecycle.deployment import Limits
from service.lifecycle.registry import Registry
from service.lifecycle.version import LoadedVersion
from service.metrics import Metrics
from service.values import (
    Explanation,
    Query,
    Ranked,
    Scored,
    Timing,
)

_EXPLAIN_METHOD = "shapley; an absent task is at its mean over the candidates"


class Pipeline:
    """Answers queries.

    Args:
        allow_formula: whether a query may bring a formula of its own.
        decisions: the log that a sample of the answers goes to, if there is one.
    """

    def __init__(
        self,
        registry: Registry,
        features: FeatureSource,
        comparer: Comparer,
        allow_formula: bool,
        decisions: DecisionLog | None,
        metrics: Metrics,
    ) -> None:
        self._registry = registry
        self._features = features
        self._comparer = comparer
        self._allow_formula = allow_formula
        self._decisions = decisions
        self._metrics = metrics
        self._seconds = {
            stage: metrics.stage_seconds.labels(stage)
            for stage in ("features", "queue", "score", "fuse")
        }

    async def score(self, query: Query) -> Scored:
        """Score all candidates on all tasks, in the order of the query."""
        with self._registry.lease(query.model, query.version, query.user_key) as version:
            if version.limits is not None:
                _keep_to(version.limits, query)
            inputs = _inputs(query, version)
            scored = await self._score(query, version, inputs)
            if version.rivals:
                self._comparer.consider(
                    Answered(query, inputs, version, scored.scores, None, None, {})
                )
        if self._decisions is not None:
            self._decisions.offer(query, scored, inputs.rows, version.manifest)
        return scored

    async def rank(self, query: Query) -> Ranked:
        """Score, fuse and sort. The answer comes from one version and one formula."""
        with self._registry.lease(query.model, query.version, query.user_key) as version:
            if version.limits is not None:
                _keep_to(version.limits, query)
            fusion, weights, rule = self._choose_fusion(query, version)
            inputs = _inputs(query, version)
            scored = await self._score(query, version, inputs)
            started = time.monotonic()
            features = inputs.fusion_features(fusion.features_used)
            fused = fusion.evaluate(scored.scores, weights, features)
            if inputs.unscorable is not None:  # also where the formula would not mind
                fused = np.where(inputs.unscorable, np.nan, fused)
            if version.rivals:
                self._comparer.consider(
                    Answered(query, inputs, version, scored.scores, fused, fusion.name, weights)
                )
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
        ranked = Ranked(
            scored=scored,
            fusion_name=fusion.name,
            fusion_version=fusion.version,
            fusion_weights=weights,
            fusion_rule=rule,
            order=order[: query.top_k],
            fused=fused,
            explanation=explanation,
        )
        if self._decisions is not None:
            self._decisions.offer(query, ranked, inputs.rows, version.manifest)
        return ranked

    async def _score(self, query: Query, version: LoadedVersion, inputs: Inputs) -> Scored:
        started = time.monotonic()
        fetched = await self._features.fetch(
            version.manifest.feature_set,
            version.encoder.layouts,
            query.user_key,
            query.item_keys,
            query.deadline - started,
        )
        fetched_at = time.monotonic()
        degraded = inputs.complete(fetched)
        users, items = inputs.sides()
        answer = await version.batcher.score(users, items, query.deadline)
        scores = answer.scores
        if inputs.unscorable is not None:
            scores = np.where(inputs.unscorable[:, None], np.float32(np.nan), scores)
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
            scores=scores,
            degraded=degraded,
            timing=Timing(
                features_ms=(fetched_at - started) * 1000,
                queue_ms=answer.queue_s * 1000,
                score_ms=answer.run_s * 1000,
                total_ms=(ended - query.arrived) * 1000,
            ),
        )

    def _choose_fusion(
        self, query: Query, version: LoadedVersion
    ) -> tuple[CompiledFusion, Mapping[str, float], str | None]:
        choice, formulas, rule = query.fusion, version.formulas, None
        if choice.formula is not None:
            fusion = self._own_fusion(choice.formula, version.manifest)
        else:
            name = choice.name or DEFAULT
            if choice.name is None and formulas.rules is not None:
                try:
                    name, rule = formulas.rules.choose(query.user_key, query.context)
                except FusionError as error:
                    raise InvalidRequest.at("context", str(error)) from error
            if name not in formulas.fusions:
                known = ", ".join(sorted(formulas.fusions)) or "none; publish one, or use /score"
                raise InvalidRequest.at("fusion", f"no fusion {name!r}; known: {known}")
            fusion = formulas.fusions[name]
        try:
            return fusion, fusion.bind_weights(choice.weights), rule
        except FusionError as error:
            raise InvalidRequest.at("fusion.weights", str(error)) from error

    def _own_fusion(self, formula: str, manifest: Manifest) -> CompiledFusion:
        if not self._allow_formula:
            raise InvalidRequest.at(
                "fusion.formula",
                "formulas in requests are not allowed here; the operator can set "
                "MULTIRANK_ALLOW_REQUEST_FORMULA",
            )
        try:
            return compile_fusion(
                adhoc_fusion(formula), manifest.task_names, manifest.features.kinds()
            )
        except FusionError as error:
            raise InvalidRequest.at("fusion.formula", str(error)) from error

    def _explain(
        self,
        query: Query,
        fusion: CompiledFusion,
        weights: Mapping[str, float],
        features: Mapping[str, npt.NDArray[np.float64]],
        scored: Scored,
        inputs: Inputs,
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


def _keep_to(limits: Limits, query: Query) -> None:
    """Hold a query to the limits of its model, which may be narrower than the service's."""
    count, most = len(query.item_ids), limits.max_candidates
    if most is not None and count > most:
        raise TooManyCandidates(f"candidates: {count} candidates, this model allows {most}")
    if limits.timeout_ms is not None:
        query.deadline = min(query.deadline, query.arrived + limits.timeout_ms / 1000)


def _inputs(query: Query, version: LoadedVersion) -> Inputs:
    rules = version.formulas.rules
    if rules is not None and rules.extra:
        context = {name: v for name, v in query.context.items() if name not in rules.extra}
        query = replace(query, context=context)
    return Inputs(query, version.encoder)
