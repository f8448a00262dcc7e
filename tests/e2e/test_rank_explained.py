"""/rank over HTTP: another fusion, how a score came about, and what was not known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Serve
from tests.e2e.asking import (
    CONTEXT,
    IDS,
    REQUEST,
    USER,
    ids_of,
    scores_of,
)
from tests.published import TASKS, Expected, fused
from tests.servers import Service


def test_a_fusions_weights_can_be_overridden(service: Service, expected: Expected) -> None:
    scores = expected.scores(USER, IDS, CONTEXT)
    for fusion, like_weight in (
        ("default", 1.0),
        ({"name": "default"}, 1.0),
        ({"weights": {"like_weight": 10.0}}, 10.0),
        ({"name": "default", "weights": {"like_weight": 0}}, 0.0),
    ):
        answer = service.rank(**REQUEST, fusion=fusion)
        wanted = np.sort(fused(scores, like_weight))[::-1]
        np.testing.assert_allclose(scores_of(answer), wanted, rtol=1e-5, atol=1e-5)
        assert answer["fusion"]["weights"] == {"like_weight": like_weight}


def test_a_formula_in_the_request_where_it_is_allowed(
    served_models: Path, expected: Expected, serve: Serve
) -> None:
    service = serve(served_models, allow_request_formula=True)
    answer = service.rank(**REQUEST, fusion={"formula": "click * like ** 0.5"})

    click, like, _ = expected.scores(USER, IDS, CONTEXT).astype(np.float64).T
    wanted = np.sort(click * like**0.5)[::-1]
    np.testing.assert_allclose(scores_of(answer), wanted, rtol=1e-5, atol=1e-5)
    assert answer["fusion"]["name"] == "inline"

    wrong = service.http.post("/rank", json={**REQUEST, "fusion": {"formula": "clik * like"}})
    assert wrong.status_code == 422
    assert wrong.json()["errors"][0]["loc"] == "fusion.formula"
    assert "did you mean 'click'" in wrong.json()["detail"]


@pytest.mark.parametrize("answer_format", ["rows", "columns"])
def test_explain(service: Service, expected: Expected, answer_format: str) -> None:
    answer = service.rank(
        user={"id": USER, "features": {"age": 30}},
        candidates={"ids": [*IDS, "unknown"], "features": {"price": [9.5] + [None] * len(IDS)}},
        explain=True,
        format=answer_format,
    )
    if answer_format == "rows":
        ids, scores = ids_of(answer), scores_of(answer).tolist()
        reasons = [item["explain"] for item in answer["items"]]
    else:
        ids, scores = answer["ids"], answer["scores"]
        reasons = answer["explain"]["items"]

    assert "shapley" in answer["explain"]["method"]
    for score, why in zip(scores, reasons, strict=True):
        assert set(why["contributions"]) == set(TASKS)
        assert sum(why["contributions"].values()) == pytest.approx(score - why["baseline"])
    assert len({why["baseline"] for why in reasons}) == 1
    for task in TASKS:
        ranks = sorted(why["rank_without"][task] for why in reasons)
        assert ranks == list(range(1, len(ids) + 1))

    stored = {"item_id": "embedded", "price": "embedded", "categories": "embedded"}
    sources = {item_id: why["features"] for item_id, why in zip(ids, reasons, strict=True)}
    assert sources[IDS[0]] == stored | {"price": "inline"}
    assert sources[IDS[1]] == stored
    assert sources["unknown"] == dict.fromkeys(stored, "default")
    history = "embedded" if expected.features("user", USER)["history"] is not None else "default"
    assert answer["explain"]["features"] == {
        "user": {"age": "inline", "segment": "embedded", "history": history},
        "context": {"hour": "default"},
    }


def test_a_task_without_part_in_the_formula_contributes_nothing(service: Service) -> None:
    answer = service.rank(**REQUEST, explain=True, fusion={"weights": {"like_weight": 0}})

    for item in answer["items"]:
        assert item["explain"]["contributions"]["like"] == pytest.approx(0.0, abs=1e-12)
        assert item["explain"]["contributions"]["click"] != 0.0


def test_what_is_not_known_is_reported(service: Service, expected: Expected) -> None:
    answer = service.rank(
        user={"id": "nobody"}, context=CONTEXT, candidates={"ids": ["i1", "unknown", "nothing"]}
    )

    counts = {"missing": 1, "stale": 0, "defaulted": 1}
    assert answer["degraded"]["features"] == {
        "user": counts,
        "item": counts | {"missing": 2, "defaulted": 2},
    }
    assert set(answer["degraded"]["reasons"]) == {
        "user_not_found",
        "user_defaulted",
        "item_not_found",
        "item_defaulted",
    }
    scores = fused(expected.scores("nobody", ["i1", "unknown", "nothing"], CONTEXT))
    np.testing.assert_allclose(scores_of(answer), np.sort(scores)[::-1], rtol=1e-5, atol=1e-5)


def test_a_context_left_out_is_reported(service: Service, expected: Expected) -> None:
    answer = service.rank(user={"id": USER}, candidates={"ids": IDS})

    assert answer["degraded"] == {
        "features": {"context": {"missing": 0, "stale": 0, "defaulted": 1}},
        "reasons": ["context_defaulted"],
    }
    scores = fused(expected.scores(USER, IDS))
    np.testing.assert_allclose(scores_of(answer), np.sort(scores)[::-1], rtol=1e-5, atol=1e-5)
