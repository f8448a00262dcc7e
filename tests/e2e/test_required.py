"""Required features: never a default in their place; who lacks one is told, item by item."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bundle import manifest, store
from bundle.schema import FeatureSchema
from tests.conftest import Serve
from tests.e2e.asking import CONTEXT, REQUEST, USER, ids_of, problem
from tests.published import MODEL, ModelsDirectory, reseal
from tests.servers import Redis, Service

REQUIRED = ("user.age", "context.hour", "item.price")


def require(models: ModelsDirectory) -> Path:
    """Publish the model once more, with required features."""
    source = models.path.parent / "strict"
    shutil.copytree(models.trained / MODEL / "1", source)
    features = manifest.parse((source / manifest.MANIFEST_FILE).read_bytes()).features.features
    strict = tuple(f.model_copy(update={"required": f.key in REQUIRED}) for f in features)
    reseal(source, model="strict", features=FeatureSchema(features=strict))
    store.publish(source, models.path)
    shutil.copytree(models.model / "fusions", models.path / "strict" / "fusions")
    return models.path


@pytest.fixture
def strict(models_dir: ModelsDirectory, serve: Serve) -> Service:
    """A service of the strict model."""
    return serve(require(models_dir))


def test_a_request_without_the_users_or_contexts_is_refused(strict: Service) -> None:
    asked = REQUEST | {"model": "strict"}
    assert strict.rank(**asked)["degraded"] is None
    for changed, locs in (
        ({"user": {"id": "nobody"}}, ["user.features.age"]),
        ({"user": {"features": {"segment": "s1"}}}, ["user.features.age"]),
        ({"context": {}}, ["context.hour"]),
    ):
        answer = strict.http.post("/rank", json=asked | changed)
        content = problem(answer, 422, "missing_feature")
        assert [error["loc"] for error in content["errors"]] == locs
    given = {"user": {"id": "nobody", "features": {"age": 30}}}
    assert strict.rank(**asked | given)["degraded"]["reasons"] == [
        "user_not_found",
        "user_defaulted",
    ]


def test_an_item_without_gets_no_score_and_comes_last(strict: Service) -> None:
    asked = REQUEST | {"model": "strict", "candidates": {"ids": ["i1", "new", "i2"]}}
    answer = strict.rank(**asked)
    assert ids_of(answer)[-1] == "new"
    last = answer["items"][-1]
    assert (last["score"], set(last["tasks"].values())) == (None, {None})
    assert all(item["score"] is not None for item in answer["items"][:-1])
    reasons = answer["degraded"]["reasons"]
    assert {"item_not_found", "item_required_missing", "scores_not_finite"} <= set(reasons)
    missing = {"reason": "item_required_missing"}
    assert strict.metric("multirank_degraded_answers_total", **missing) == 1
    # the others are ranked as if it had not been asked for
    without = strict.rank(**asked | {"candidates": {"ids": ["i1", "i2"]}})
    assert [item["score"] for item in answer["items"][:-1]] == [
        pytest.approx(item["score"], rel=1e-5) for item in without["items"]
    ]
    alone = {"candidates": {"ids": ["new", "newer"]}}
    content = problem(strict.http.post("/rank", json=asked | alone), 422, "missing_feature")
    assert [error["loc"] for error in content["errors"]] == ["candidates.features.price"]
    assert "of every candidate" in content["detail"]


def test_when_the_store_is_to_blame_it_is_503(
    models_dir: ModelsDirectory, serve: Serve, redis_server: Redis
) -> None:
    service = serve(require(models_dir), redis_url=redis_server.url)
    service.allow_in_log(r"redis does not report changes|features are missing|redis fails")
    redis_server.stop()
    asked = REQUEST | {"model": "strict"}
    content = problem(service.http.post("/rank", json=asked), 503, "feature_store_unavailable")
    assert "user.age is required" in content["detail"]
    sent = {"id": USER, "features": {"age": 30}}
    answer = service.http.post("/rank", json=asked | {"user": sent, "context": CONTEXT})
    content = problem(answer, 503, "feature_store_unavailable")
    assert "item.price of every candidate is required" in content["detail"]
