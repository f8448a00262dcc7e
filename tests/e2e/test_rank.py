"""/rank and /score over HTTP: what is answered to a good request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import ormsgpack
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import Serve
from tests.e2e.asking import (
    CONTEXT,
    IDS,
    JSON,
    MSGPACK,
    REQUEST,
    USER,
    best_first,
    ids_of,
    scores_of,
    tasks_of,
)
from tests.published import TASKS, Expected, fused
from tests.servers import Service


def test_ranks_by_the_formula_over_the_models_own_scores(
    service: Service, expected: Expected
) -> None:
    answer = service.rank(**REQUEST)

    scores = expected.scores(USER, IDS, CONTEXT)
    order = best_first(fused(scores))
    assert ids_of(answer) == [IDS[row] for row in order]
    np.testing.assert_allclose(tasks_of(answer), scores[order], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(scores_of(answer), fused(scores)[order], rtol=1e-5, atol=1e-5)
    assert list(answer["items"][0]["tasks"]) == list(TASKS)
    assert answer["model"] == {"name": "synthetic", "version": 1}
    assert answer["fusion"]["name"] == "default"
    assert answer["degraded"] is None
    assert set(answer["timing_ms"]) == {"features", "queue", "score", "fuse", "total"}
    assert all(spent >= 0 for spent in answer["timing_ms"].values())


def test_the_users_history_and_the_context_count(service: Service) -> None:
    for other in ({"user": {"id": "u77"}}, {"context": {"hour": 3}}):
        assert not np.allclose(
            scores_of(service.rank(**REQUEST)), scores_of(service.rank(**REQUEST | other))
        )


def test_columns_say_what_rows_say(service: Service) -> None:
    rows, columns = service.rank(**REQUEST), service.rank(**REQUEST, format="columns")

    assert columns["ids"] == ids_of(rows)
    assert columns["scores"] == scores_of(rows).tolist()
    in_columns = np.array([columns["tasks"][task] for task in TASKS], np.float32).T
    np.testing.assert_array_equal(in_columns, tasks_of(rows).astype(np.float32))
    assert "items" not in columns
    assert columns["fusion"] == rows["fusion"]


@pytest.mark.parametrize("path", ["/rank", "/score"])
@pytest.mark.parametrize("answer_format", ["rows", "columns"])
def test_msgpack_says_what_json_says(service: Service, path: str, answer_format: str) -> None:
    body = REQUEST | {"format": answer_format, "request_id": "r-1", "explain": path == "/rank"}
    in_json = service.ask(path, body)
    packed = ormsgpack.packb(body)
    for content, headers in (
        (packed, MSGPACK),
        (orjson.dumps(body), JSON | {"accept": "application/msgpack"}),
    ):
        answer = service.http.post(path, content=content, headers=headers)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/msgpack"
        in_msgpack = ormsgpack.unpackb(answer.content)
        assert set(in_msgpack) == set(in_json)
        in_msgpack["timing_ms"] = in_json["timing_ms"]
        assert_same(in_msgpack, in_json)

    back = service.http.post(path, content=packed, headers=MSGPACK | {"accept": "application/json"})
    assert back.json()["request_id"] == "r-1"


def assert_same(one: Any, other: Any) -> None:
    """Equal, but for how many digits of a float32 are written."""
    if isinstance(one, dict):
        assert list(one) == list(other)
        for name, value in one.items():
            assert_same(value, other[name])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for each, its in zip(one, other, strict=True):
            assert_same(each, its)
    else:
        assert one == (pytest.approx(other, rel=1e-7) if isinstance(one, float) else other)


def test_candidates_as_rows_with_features_of_some(service: Service, expected: Expected) -> None:
    rows = [{"id": IDS[0]}, {"id": IDS[1], "features": {"price": 55.5}}, {"id": IDS[2]}]
    columns = {"ids": IDS[:3], "features": {"price": [None, 55.5, None]}}
    of_rows = service.rank(user={"id": USER}, context=CONTEXT, candidates=rows)
    of_columns = service.rank(user={"id": USER}, context=CONTEXT, candidates=columns)

    dearer = expected.features("item", IDS[1]) | {"price": 55.5}
    scores = expected.scores(USER, [IDS[0], dearer, IDS[2]], CONTEXT)
    order = best_first(fused(scores))
    assert ids_of(of_rows) == [IDS[row] for row in order]
    np.testing.assert_allclose(tasks_of(of_rows), scores[order], rtol=1e-5, atol=1e-5)
    assert of_rows["items"] == of_columns["items"]
    assert of_rows["degraded"] is None


def test_inline_user_features_override_stored_ones_and_do_for_a_user_without_id(
    service: Service, expected: Expected
) -> None:
    younger = expected.features("user", USER) | {"age": 17}
    with_id = service.rank(**REQUEST | {"user": {"id": USER, "features": {"age": 17}}})
    without = service.rank(**REQUEST | {"user": {"features": younger}})

    scores = expected.scores(younger, IDS, CONTEXT)
    for answer in (with_id, without):
        np.testing.assert_allclose(
            scores_of(answer), np.sort(fused(scores))[::-1], rtol=1e-5, atol=1e-5
        )
        assert answer["degraded"] is None


@pytest.mark.parametrize("path", ["/rank", "/score"])
@pytest.mark.parametrize("answer_format", ["rows", "columns"])
def test_ids_are_answered_as_they_came(service: Service, path: str, answer_format: str) -> None:
    sent: list[Any] = [3, "3 ", "i3", -(2**63), 2**64 - 1, "ü/\u2028\n", 0]
    body = {"user": {"id": 1}, "candidates": {"ids": sent}, "format": answer_format}
    answer = service.ask(path, body)

    got = answer["ids"] if answer_format == "columns" else ids_of(answer)
    assert sorted(map(repr, got)) == sorted(map(repr, sent))


def test_users_of_a_file_and_integers_as_their_ids(
    served_models: Path, expected: Expected, serve: Serve, tmp_path: Path
) -> None:
    file = tmp_path / "users.parquet"
    pq.write_table(pa.Table.from_pylist([{"user_id": 12, **expected.features("user", USER)}]), file)
    service = serve(served_models, user_features_file=file)

    scores = fused(expected.scores(USER, IDS, CONTEXT))
    for user_id in (12, "12"):
        answer = service.rank(**REQUEST | {"user": {"id": user_id}})
        np.testing.assert_allclose(scores_of(answer), np.sort(scores)[::-1], rtol=1e-5, atol=1e-5)
        assert answer["degraded"] is None
    assert service.rank(**REQUEST)["degraded"]["features"]["user"]["missing"] == 1


def test_ties_keep_the_order_of_the_request(service: Service) -> None:
    unknown = [f"unknown-{number}" for number in (5, 1, 4, 2, 3)]
    for ids in (unknown, unknown[::-1]):
        answer = service.rank(user={"id": USER}, context=CONTEXT, candidates={"ids": ids})
        assert len(set(scores_of(answer).tolist())) == 1
        assert ids_of(answer) == ids


@pytest.mark.parametrize("top_k", [1, 3, len(IDS), 2**63 - 1])
def test_top_k_cuts_the_ranking(service: Service, top_k: int) -> None:
    whole = service.rank(**REQUEST)
    assert service.rank(**REQUEST, top_k=top_k)["items"] == whole["items"][:top_k]
    columns = service.rank(**REQUEST, top_k=top_k, format="columns")
    assert columns["ids"] == ids_of(whole)[:top_k]


def test_as_many_candidates_as_are_allowed(service: Service, expected: Expected) -> None:
    ids = [f"i{number}" for number in range(2000)]
    answer = service.rank(user={"id": USER}, context=CONTEXT, candidates={"ids": ids})

    scores = fused(expected.scores(USER, ids, CONTEXT))
    assert len(answer["items"]) == 2000
    np.testing.assert_allclose(scores_of(answer), np.sort(scores)[::-1], rtol=1e-5, atol=1e-5)


def test_the_request_id_comes_back(service: Service) -> None:
    both = {"request_id": "r-1", **REQUEST}
    for body, headers, echoed in (
        (both, {}, "r-1"),
        (REQUEST, {"X-Request-ID": "h-1"}, "h-1"),
        (both, {"X-Request-ID": "h-1"}, "r-1"),
    ):
        answer = service.http.post("/rank", json=body, headers=headers)
        assert answer.json()["request_id"] == echoed
        assert answer.headers["X-Request-ID"] == echoed
    made = [service.rank(**REQUEST)["request_id"] for _ in range(2)]
    assert all(made)
    assert made[0] != made[1]


@pytest.mark.parametrize("change", [{}, {"top_k": 0}, {"model": "nope"}])
@pytest.mark.parametrize("request_id", ["zażółć \U0001f600", "a\r\nSet-Cookie: b=1", "\x00\x7f"])
def test_no_request_id_can_break_the_answer_or_its_headers(
    service: Service, request_id: str, change: dict[str, Any]
) -> None:
    answer = service.http.post("/rank", json=REQUEST | change | {"request_id": request_id})

    assert answer.status_code == {"": 200, "top_k": 422, "model": 404}["".join(change)]
    assert answer.json()["request_id"] == request_id
    assert "set-cookie" not in answer.headers
    assert answer.headers["X-Request-ID"].isprintable()


def test_a_version_can_be_pinned(service: Service) -> None:
    assert service.rank(**REQUEST, version=1)["model"]["version"] == 1
    assert service.rank(**REQUEST, model="synthetic", version=1)["model"]["version"] == 1


def test_score_answers_all_tasks_in_the_order_of_the_request(
    service: Service, expected: Expected
) -> None:
    rows = service.ask("/score", REQUEST)
    columns = service.ask("/score", {**REQUEST, "format": "columns"})

    assert ids_of(rows) == IDS == columns["ids"]
    scores = expected.scores(USER, IDS, CONTEXT)
    np.testing.assert_allclose(tasks_of(rows), scores, rtol=1e-5, atol=1e-5)
    in_columns = np.array([columns["tasks"][task] for task in TASKS], np.float32).T
    np.testing.assert_array_equal(in_columns, tasks_of(rows).astype(np.float32))
    assert "score" not in rows["items"][0]
    assert "fusion" not in rows
