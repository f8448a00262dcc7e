"""What operators and monitors ask: /models, /healthz, /readyz, /metrics, /docs."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import Serve
from tests.e2e.asking import GOOD, problem
from tests.published import MODEL, TASKS, ModelsDirectory
from tests.servers import Service, eventually


def test_models_says_what_is_served(service: Service) -> None:
    answer = service.http.get("/models")
    assert answer.headers["content-type"] == "application/json"

    fusion = service.rank(**GOOD)["fusion"]["version"]
    (model,) = answer.json()["models"]
    (worker,) = model.pop("workers")
    assert worker == {
        "worker": 0,
        "pid": service.process.pid,
        "stale": False,
        "generation": 0,
        "stable": 1,
        "canary": None,
        "shadow": None,
        "settled": True,
    }
    assert model["versions"][0].pop("memory_bytes") > 0
    assert model == {
        "name": MODEL,
        "deployment": {
            "generation": 0,
            "stable": "newest",
            "canary": None,
            "shadow": None,
            "pinned": [],
        },
        "problem": None,
        "converged": True,
        "versions": [
            {
                "version": 1,
                "state": "ready",
                "reason": None,
                "labels": ["stable"],
                "traffic": 1.0,
                "leases": 0,
            }
        ],
        "tasks": list(TASKS),
        "fusions": {"default": fusion},
        "fusions_refused": {},
    }


def test_the_process_lives_before_a_model_is_there_and_is_ready_after(
    models_dir: ModelsDirectory, serve: Serve, tmp_path: Path
) -> None:
    empty = tmp_path / "later"
    service = serve(empty, ready=False)

    assert service.http.get("/healthz").json() == {"status": "ok"}
    content = problem(service.http.get("/readyz"), 503, "not_ready")
    assert [error["loc"] for error in content["errors"]] == ["models"]
    assert str(empty) in content["detail"]
    problem(service.http.post("/rank", json=GOOD), 503, "no_active_model")
    assert service.http.get("/models").json() == {"models": []}

    models_dir.path.rename(empty)
    ready = eventually(
        lambda: answer if (answer := service.http.get("/readyz")).status_code == 200 else None
    )
    assert ready is not None
    assert ready.json()["feature_store"] == {"name": "embedded", "state": "ok"}
    assert service.rank(**GOOD)["model"]["version"] == 1


def test_two_models_must_be_told_apart(
    models_dir: ModelsDirectory, serve: Serve, trained_models: Path
) -> None:
    other = models_dir.copy_as_model("other", trained_version=2)
    service = serve(models_dir.path)
    eventually(lambda: len(service.http.get("/models").json()["models"]) == 2)
    eventually(lambda: service.model(other)["tasks"])

    content = problem(service.http.post("/rank", json=GOOD), 404, "unknown_model")
    assert MODEL in content["detail"]
    assert other in content["detail"]
    scores = []
    for name in (MODEL, other):
        answer = service.rank(**GOOD, model=name)
        assert answer["model"] == {"name": name, "version": 1}
        scores.append(answer["items"][0]["tasks"]["click"])
    assert scores[0] != scores[1]


def test_metrics_count_what_was_answered(service: Service) -> None:
    def answers(route: str, status: str, code: str) -> float:
        return service.metric("multirank_answers_total", route=route, status=status, code=code)

    def seen() -> list[float]:
        return [
            answers("rank", "200", "ok"),
            answers("score", "200", "ok"),
            answers("rank", "422", "invalid_request"),
            service.metric("multirank_candidates_sum"),
            service.metric("multirank_feature_rows_total", entity="item", outcome="found")
            + service.metric("multirank_feature_rows_total", entity="item", outcome="cached"),
            service.metric("multirank_feature_rows_total", entity="item", outcome="not_found"),
            service.metric("multirank_degraded_answers_total", reason="item_not_found"),
            service.metric("multirank_request_seconds_count", route="rank"),
        ]

    before = seen()
    service.rank(user={"id": "u5"}, candidates={"ids": ["i1", "i2", "uncounted"]})
    service.ask("/score", {"user": {"id": "u5"}, "candidates": {"ids": ["i1"]}})
    service.http.post("/rank", json=GOOD | {"top_k": 0})
    grown = [after - earlier for after, earlier in zip(seen(), before, strict=True)]

    assert grown == [1, 1, 1, 4, 3, 1, 1, 2]
    state = {"model": MODEL, "version": "1", "state": "ready"}
    assert service.metric("multirank_version_state", **state) == 1
    assert service.metric("multirank_leases", model=MODEL, version="1") == 0


def test_the_openapi_page_and_its_docs(service: Service) -> None:
    page = service.http.get("/openapi.json").json()
    paths = {"/rank", "/score", "/models", "/healthz", "/readyz", "/metrics"}
    assert paths <= set(page["paths"])
    assert {"RankRequest", "RankResponse", "Problem"} <= set(page["components"]["schemas"])
    docs = service.http.get("/docs")
    assert docs.status_code == 200
    assert "/openapi.json" in docs.text
