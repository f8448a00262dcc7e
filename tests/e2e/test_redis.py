"""Features in a real Redis: loaded by the command, read once a request, missed when it is gone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis

from tests.conftest import Serve
from tests.e2e.asking import CONTEXT, IDS, REQUEST, USER, problem, scores_of
from tests.published import MODEL, Array, Expected, fused
from tests.servers import Redis, Service, environment, eventually

LOST = r"redis does not report changes|features are missing|redis fails"
"""What the service says, once or again and again, while Redis is gone."""


def features_load(
    models: Path, url: str, entity: str, *file: Path, model: str = MODEL
) -> subprocess.CompletedProcess[str]:
    """Run `multirank features load`."""
    command = [sys.executable, "-m", "multirank", "features", "load", "--entity", entity]
    return subprocess.run(
        [*command, "--model", model, *map(str, file)],
        env=environment(models_dir=models, redis_url=url),
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture(scope="module")
def loaded_url(served_models: Path, redis_url: str) -> str:
    """A Redis with the sample's features, loaded as an operator would."""
    for entity, rows in (("user", 300), ("item", 200)):
        done = features_load(served_models, redis_url, entity)
        assert done.returncode == 0, done.stderr
        assert f"loaded {rows} {entity} rows of {MODEL}" in done.stdout
    return redis_url


@pytest.fixture
def own_redis(redis_server: Redis, loaded_url: str) -> Redis:
    """A Redis of the test's own, with the same features."""
    copy_rows(loaded_url, redis_server)
    return redis_server


def copy_rows(source_url: str, target: Redis) -> None:
    """Copy every feature row of one Redis into another."""
    with redis.Redis.from_url(source_url) as source, target.client() as client:
        keys = list(source.scan_iter("mr:*"))
        client.mset(dict(zip(keys, source.mget(keys), strict=True)))


def expect_scores(answer: Any, scores: Array) -> None:
    """The answer must rank by these task scores."""
    wanted = np.sort(fused(scores))[::-1]
    np.testing.assert_allclose(scores_of(answer), wanted, rtol=1e-5, atol=1e-5)


def test_redis_answers_as_the_embedded_store_does(
    service: Service, served_models: Path, loaded_url: str, serve: Serve
) -> None:
    of_redis = serve(served_models, redis_url=loaded_url)
    ready = of_redis.http.get("/readyz").json()
    assert ready["feature_store"] == {"name": "redis", "state": "ok"}

    unknown_user = REQUEST | {"user": {"id": "nobody"}}
    unknown_item = REQUEST | {"candidates": {"ids": ["i9", "new"]}}
    for body in (REQUEST, unknown_user, unknown_item):
        for _ in range(2):  # from Redis; from memory
            of_both = [each.rank(**body) for each in (of_redis, service)]
            assert of_both[0]["items"] == of_both[1]["items"]
            assert of_both[0]["degraded"] == of_both[1]["degraded"]


def test_where_features_came_from(served_models: Path, loaded_url: str, serve: Serve) -> None:
    service = serve(served_models, redis_url=loaded_url)
    candidates = {"ids": ["i1", "new"], "features": {"price": [None, 3.5]}}
    answer = service.rank(user={"id": USER}, candidates=candidates, explain=True)

    sources = {item["id"]: item["explain"]["features"] for item in answer["items"]}
    assert sources["i1"] == dict.fromkeys(("item_id", "price", "categories"), "redis")
    assert sources["new"] == {"item_id": "default", "price": "inline", "categories": "default"}
    assert answer["explain"]["features"]["user"]["age"] == "redis"


def test_a_request_reads_once_at_most(
    own_redis: Redis, served_models: Path, serve: Serve, expected: Expected
) -> None:
    service = serve(served_models, redis_url=own_redis.url)
    users, items = expected.ids("user"), expected.ids("item")
    bodies = [
        {"user": {"id": users[n]}, "candidates": {"ids": items[10 * n : 10 * n + 10]}}
        for n in range(10)
    ]
    own_redis.reset_calls()
    for body in bodies:  # nothing of it was asked for before
        service.rank(**body)
    assert own_redis.calls("mget") == len(bodies)
    for body in bodies:  # all of it was; and some of it is new
        service.rank(**body)
        service.rank(**body | {"user": {"id": f"new-{body['user']}"}})
    assert own_redis.calls("mget") <= 3 * len(bodies)
    assert own_redis.calls("get") == 0

    inline = {"features": expected.features("user", USER)}
    own_redis.reset_calls()
    service.rank(user=inline, candidates={"ids": ["never-asked-for"]})
    assert own_redis.calls("mget") == 1


def test_without_redis_answers_are_degraded_and_with_it_they_are_whole_again(
    own_redis: Redis, loaded_url: str, served_models: Path, serve: Serve, expected: Expected
) -> None:
    service = serve(served_models, redis_url=own_redis.url)
    service.allow_in_log(LOST)
    own_redis.stop()

    answer = service.rank(**REQUEST)
    assert "redis_unavailable" in answer["degraded"]["reasons"]
    missing = {"missing": len(IDS), "stale": 0, "defaulted": len(IDS)}
    assert answer["degraded"]["features"]["item"] == missing
    assert answer["degraded"]["features"]["user"] == {"missing": 1, "stale": 0, "defaulted": 1}
    expect_scores(answer, expected.scores("nobody", ["unknown"] * len(IDS), CONTEXT))
    unavailable = {"reason": "redis_unavailable"}
    assert service.metric("multirank_feature_failures_total", **unavailable) == 1
    assert service.metric("multirank_degraded_answers_total", **unavailable) == 1
    ready = service.http.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["feature_store"]["state"].startswith("redis: ")

    inline = [{"id": i, "features": expected.features("item", i)} for i in IDS]
    user = {"id": USER, "features": expected.features("user", USER)}
    answer = service.rank(user=user, context=CONTEXT, candidates=inline)
    expect_scores(answer, expected.scores(USER, IDS, CONTEXT))
    assert answer["degraded"] == {"features": {}, "reasons": ["redis_unavailable"]}

    own_redis.start()
    copy_rows(loaded_url, own_redis)
    answer = eventually(
        lambda: whole if (whole := service.rank(**REQUEST))["degraded"] is None else None
    )
    expect_scores(answer, expected.scores(USER, IDS, CONTEXT))


def test_without_redis_503_where_that_is_wanted(
    own_redis: Redis, loaded_url: str, served_models: Path, serve: Serve
) -> None:
    service = serve(served_models, redis_url=own_redis.url, feature_failure="error")
    service.allow_in_log(LOST)
    assert service.rank(**REQUEST)["degraded"] is None
    own_redis.stop()

    unseen = REQUEST | {"candidates": {"ids": ["i20", "i21"]}}
    problem(service.http.post("/rank", json=unseen), 503, "feature_store_unavailable")
    content = problem(service.http.get("/readyz"), 503, "not_ready")
    assert [error["loc"] for error in content["errors"]] == ["feature_store"]
    assert service.http.get("/healthz").status_code == 200

    own_redis.start()
    copy_rows(loaded_url, own_redis)
    eventually(lambda: service.http.post("/rank", json=unseen).status_code == 200)
    assert service.rank(**unseen)["degraded"] is None
    service.wait_ready()


def test_started_before_redis(
    redis_server: Redis, loaded_url: str, served_models: Path, serve: Serve, expected: Expected
) -> None:
    redis_server.stop()
    service = serve(served_models, redis_url=redis_server.url)
    service.allow_in_log(LOST)
    assert "redis_unavailable" in service.rank(**REQUEST)["degraded"]["reasons"]

    redis_server.start()
    copy_rows(loaded_url, redis_server)
    answer = eventually(
        lambda: whole if (whole := service.rank(**REQUEST))["degraded"] is None else None
    )
    expect_scores(answer, expected.scores(USER, IDS, CONTEXT))


def test_a_redis_that_hangs_gives_nobody_the_rows_of_another(
    own_redis: Redis, served_models: Path, serve: Serve, expected: Expected
) -> None:
    service = serve(served_models, redis_url=own_redis.url, feature_timeout_ms=50)
    service.allow_in_log(LOST)
    users, items = expected.ids("user")[:12], expected.ids("item")[:60]
    late = {"redis_timeout", "redis_circuit_open"}

    def ask(number: int) -> Any:
        candidates = {"ids": items[5 * number : 5 * number + 5]}
        return service.rank(user={"id": users[number]}, context=CONTEXT, candidates=candidates)

    with own_redis.held():
        for number in range(6):
            answer = ask(number)
            assert late & set(answer["degraded"]["reasons"])

    eventually(lambda: service.rank(**REQUEST)["degraded"] is None)
    for number in [*range(12), *range(6)]:
        answer = ask(number)
        # the machine may be slow: late is not wrong, but whatever has come must be one's own
        if answer["degraded"] is None:
            right = expected.scores(users[number], items[5 * number : 5 * number + 5], CONTEXT)
            expect_scores(answer, right)
        else:
            assert late & set(answer["degraded"]["reasons"])


def test_features_loaded_again_are_used_at_once(
    own_redis: Redis, served_models: Path, serve: Serve, expected: Expected, tmp_path: Path
) -> None:
    service = serve(served_models, redis_url=own_redis.url)
    for _ in range(2):
        expect_scores(service.rank(**REQUEST), expected.scores(USER, IDS, CONTEXT))

    dearer = [expected.features("item", item) | {"price": 30.0 + n} for n, item in enumerate(IDS)]
    new = [expected.features("item", "i9") | {"item_id": "brand-new"}]
    pq.write_table(pa.Table.from_pylist([*dearer, *new]), tmp_path / "items.parquet")
    done = features_load(served_models, own_redis.url, "item", tmp_path / "items.parquet")
    assert done.returncode == 0, done.stderr
    assert f"loaded {len(IDS) + 1} item rows" in done.stdout

    right = np.sort(fused(expected.scores(USER, dearer, CONTEXT)))[::-1]
    eventually(
        lambda: np.allclose(scores_of(service.rank(**REQUEST)), right, rtol=1e-5, atol=1e-5),
        timeout_s=2.0,
    )
    assert service.rank(**REQUEST | {"candidates": {"ids": ["brand-new"]}})["degraded"] is None


def test_what_cannot_be_loaded(served_models: Path, redis_url: str, tmp_path: Path) -> None:
    strange = tmp_path / "strange.parquet"
    cheap = {"item_id": "i1", "price": "cheap", "categories": ["c"]}
    pq.write_table(pa.Table.from_pylist([cheap]), strange)
    poor = tmp_path / "poor.parquet"
    pq.write_table(pa.table({"item_id": ["i1"]}), poor)
    text = tmp_path / "text.parquet"
    text.write_text("not a table")
    nowhere = "redis://127.0.0.1:1/0"
    for done, says in (
        (
            features_load(served_models, redis_url, "item", strange),
            "row 0: price: expected a number, got str",
        ),
        (features_load(served_models, redis_url, "item", poor), "no column categories, price"),
        (features_load(served_models, redis_url, "item", text), "not a readable Parquet file"),
        (features_load(served_models, redis_url, "item", model="nope"), "no published version"),
        (features_load(served_models, nowhere, "item"), "127.0.0.1:1"),
    ):
        assert done.returncode == 1
        assert says in done.stderr
        assert "Traceback" not in done.stderr


def test_a_url_that_is_none_ends_the_process(served_models: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "multirank", "serve", "--models", str(served_models)],
        env=environment(redis_url="redis+cluster://:secret@host:six"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "MULTIRANK_REDIS_URL: not the URL of a Redis: expected host:port" in done.stderr
    assert "secret" not in done.stderr
