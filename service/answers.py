"""The far end of a request: Scored or Ranked -> the body of an answer.

In columns where columns do: per-item Python objects are made only for `format: rows`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from service.bodies import JSON, BodyFormat, listed, numbers
from service.values import Degradation, Explanation, Ranked, Scored


def scored_answer(scored: Scored, columns: bool, form: BodyFormat = JSON) -> bytes:
    """The body of an answer of /score."""
    order = np.arange(len(scored.item_ids))
    answer = _common(scored)
    if columns:
        answer |= {"ids": scored.item_ids, "tasks": _task_columns(scored, order)}
    else:
        answer["items"] = [
            {"id": item_id, "tasks": tasks}
            for item_id, tasks in zip(scored.item_ids, _task_rows(scored, order), strict=True)
        ]
    return form.dumps(answer)


def ranked_answer(ranked: Ranked, columns: bool, form: BodyFormat = JSON) -> bytes:
    """The body of an answer of /rank."""
    scored, order = ranked.scored, ranked.order
    answer = _common(scored)
    answer["fusion"] = {
        "name": ranked.fusion_name,
        "version": ranked.fusion_version,
        "weights": ranked.fusion_weights,
        "rule": ranked.fusion_rule,
    }
    ids = list(map(scored.item_ids.__getitem__, order.tolist()))
    fused = ranked.fused[order]
    explanation = ranked.explanation
    if explanation is not None:
        answer["explain"] = {
            "method": explanation.method,
            "features": {"user": explanation.user_sources, "context": explanation.context_sources},
        }
    if columns:
        answer |= {"ids": ids, "scores": numbers(fused), "tasks": _task_columns(scored, order)}
        if explanation is not None:
            answer["explain"]["items"] = _explained_rows(explanation, scored, order)
        return form.dumps(answer)
    items: list[dict[str, Any]] = [
        {"id": item_id, "score": score, "tasks": tasks}
        for item_id, score, tasks in zip(ids, listed(fused), _task_rows(scored, order), strict=True)
    ]
    if explanation is not None:
        for item, why in zip(items, _explained_rows(explanation, scored, order), strict=True):
            item["explain"] = why
    answer["items"] = items
    return form.dumps(answer)


def _common(scored: Scored) -> dict[str, Any]:
    timing = scored.timing
    return {
        "request_id": scored.request_id,
        "model": {"name": scored.model, "version": scored.version},
        "degraded": _degraded(scored.degraded),
        "timing_ms": {
            "features": round(timing.features_ms, 3),
            "queue": round(timing.queue_ms, 3),
            "score": round(timing.score_ms, 3),
            "fuse": round(timing.fuse_ms, 3),
            "total": round(timing.total_ms, 3),
        },
    }


def _degraded(degraded: Degradation) -> dict[str, Any] | None:
    if not degraded:
        return None
    return {
        "features": {
            entity: {
                "missing": counts.missing,
                "stale": counts.stale,
                "defaulted": counts.defaulted,
            }
            for entity, counts in degraded.features.items()
        },
        "reasons": degraded.reasons,
    }


def _task_columns(scored: Scored, order: np.ndarray[Any, Any]) -> dict[str, Any]:
    columns = np.ascontiguousarray(scored.scores.take(order, axis=0).T)
    return dict(zip(scored.tasks, numbers(columns), strict=True))


def _task_rows(scored: Scored, order: np.ndarray[Any, Any]) -> list[dict[str, Any]]:
    return [dict(zip(scored.tasks, row, strict=True)) for row in listed(scored.scores[order])]


def _explained_rows(
    explanation: Explanation, scored: Scored, order: np.ndarray[Any, Any]
) -> list[dict[str, Any]]:
    contributions = listed(explanation.contributions)
    baseline = listed(explanation.baseline)
    ranks = explanation.ranks_without.tolist()
    return [
        {
            "contributions": dict(zip(scored.tasks, contributions[row], strict=True)),
            "baseline": baseline[row],
            "rank_without": dict(zip(scored.tasks, ranks[row], strict=True)),
            "features": {name: column[row] for name, column in explanation.item_sources.items()},
        }
        for row in order.tolist()
    ]
