"""The far end of a request: scores and rankings -> bodies."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from service.answers import ranked_answer, scored_answer
from service.values import (
    Degradation,
    Explanation,
    Id,
    Ranked,
    RowCounts,
    Scored,
    Timing,
)

NAN, INF = math.nan, math.inf


def scored(scores: Any, ids: list[Id] | None = None, **changes: Any) -> Scored:
    table = np.array(scores, np.float32)
    fields: dict[str, Any] = {
        "request_id": "r-1",
        "model": "tiny",
        "version": 3,
        "tasks": ("click", "like"),
        "item_ids": ids or ["a", 7, "c"][: len(table)],
        "scores": table,
        "degraded": Degradation(),
        "timing": Timing(0.12345, 1, 2, 3, 6.5),
    }
    return Scored(**(fields | changes))


def ranked(answer: Scored, order: list[int], fused: list[float], **changes: Any) -> Ranked:
    fields: dict[str, Any] = {
        "scored": answer,
        "fusion_name": "default",
        "fusion_version": "0123456789ab",
        "fusion_weights": {"w": 2.0},
        "fusion_rule": "late",
        "order": np.array(order, np.intp),
        "fused": np.array(fused, np.float64),
        "explanation": None,
    }
    return Ranked(**(fields | changes))


def test_scores_as_rows_and_as_columns() -> None:
    answer = scored([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])
    rows = json.loads(scored_answer(answer, columns=False))
    assert rows == {
        "request_id": "r-1",
        "model": {"name": "tiny", "version": 3},
        "degraded": None,
        "timing_ms": {"features": 0.123, "queue": 1, "score": 2, "fuse": 3, "total": 6.5},
        "items": [
            {"id": "a", "tasks": pytest.approx({"click": 0.1, "like": 0.2})},
            {"id": 7, "tasks": pytest.approx({"click": 0.3, "like": 0.4})},
            {"id": "c", "tasks": pytest.approx({"click": 0.5, "like": 0.6})},
        ],
    }
    columns = json.loads(scored_answer(answer, columns=True))
    assert columns.pop("ids") == ["a", 7, "c"]
    tasks = columns.pop("tasks")
    assert tasks["click"] == pytest.approx([0.1, 0.3, 0.5])
    assert tasks["like"] == pytest.approx([0.2, 0.4, 0.6])
    rows.pop("items")
    assert columns == rows


@pytest.mark.parametrize("columns", [False, True])
def test_every_float32_comes_back_as_it_was(columns: bool) -> None:
    values = np.array(
        [[0.1, 1e-7], [np.float32(1) / 3, 3.4e38], [1.1754944e-38, 16777217.0]], np.float32
    )
    answer = json.loads(scored_answer(scored(values), columns))
    if columns:
        found = np.array([answer["tasks"]["click"], answer["tasks"]["like"]]).T
    else:
        found = np.array([[i["tasks"]["click"], i["tasks"]["like"]] for i in answer["items"]])
    np.testing.assert_array_equal(found.astype(np.float32), values)


def test_columns_are_written_with_the_digits_that_float32_has() -> None:
    assert b'"click":[0.1,0.3]' in scored_answer(scored([[0.1, 0], [0.3, 0]]), columns=True)


@pytest.mark.parametrize("columns", [False, True])
def test_what_is_not_finite_is_null(columns: bool) -> None:
    answer = ranked(scored([[NAN, 1], [INF, 2], [-INF, 3]]), [0, 1, 2], [NAN, INF, -INF])
    for raw in (scored_answer(answer.scored, columns), ranked_answer(answer, columns)):
        found = json.loads(raw, parse_constant=lambda text: pytest.fail(text))
        clicks = (
            found["tasks"]["click"] if columns else [i["tasks"]["click"] for i in found["items"]]
        )
        assert clicks == [None] * 3
    fused = found["scores"] if columns else [item["score"] for item in found["items"]]
    assert fused == [None] * 3


def test_a_ranking_is_in_its_order_and_may_be_shorter() -> None:
    answer = ranked(scored([[0.1, 1], [0.2, 2], [0.3, 3]]), [2, 0], [0.1, -1.0, 1 / 3])
    rows = json.loads(ranked_answer(answer, columns=False))
    assert [(item["id"], item["score"]) for item in rows["items"]] == [("c", 1 / 3), ("a", 0.1)]
    assert [item["tasks"]["like"] for item in rows["items"]] == [3, 1]
    assert rows["fusion"] == {
        "name": "default",
        "version": "0123456789ab",
        "weights": {"w": 2.0},
        "rule": "late",
    }
    columns = json.loads(ranked_answer(answer, columns=True))
    assert (columns["ids"], columns["scores"]) == (["c", "a"], [1 / 3, 0.1])
    assert columns["tasks"]["like"] == [3, 1]
    assert "items" not in columns
    assert "explain" not in columns
    assert "explain" not in rows["items"][0]


def test_what_is_degraded_is_said() -> None:
    degraded = Degradation({"item": RowCounts(missing=2, stale=0, defaulted=3)}, ["item_defaulted"])
    answer = json.loads(scored_answer(scored([[1, 2]], degraded=degraded), columns=False))
    assert answer["degraded"] == {
        "features": {"item": {"missing": 2, "stale": 0, "defaulted": 3}},
        "reasons": ["item_defaulted"],
    }


def test_an_explanation_follows_the_ranking() -> None:
    why = Explanation(
        method="shapley",
        baseline=np.array([0.5, 0.5]),
        contributions=np.array([[0.1, 0.2], [0.3, NAN]]),
        ranks_without=np.array([[1, 2], [2, 1]]),
        user_sources={"age": "inline"},
        context_sources={"hour": "default"},
        item_sources={"price": ["redis", "default"]},
    )
    answer = ranked(scored([[1, 2], [3, 4]]), [1, 0], [0.8, 0.9], explanation=why)
    rows = json.loads(ranked_answer(answer, columns=False))
    first = {
        "contributions": {"click": 0.3, "like": None},
        "baseline": 0.5,
        "rank_without": {"click": 2, "like": 1},
        "features": {"price": "default"},
    }
    assert rows["items"][0]["explain"] == first
    assert rows["items"][1]["explain"]["features"] == {"price": "redis"}
    about = {
        "method": "shapley",
        "features": {"user": {"age": "inline"}, "context": {"hour": "default"}},
    }
    assert rows["explain"] == about
    columns = json.loads(ranked_answer(answer, columns=True))
    assert columns["explain"]["items"][0] == first
    assert columns["explain"]["method"] == "shapley"
