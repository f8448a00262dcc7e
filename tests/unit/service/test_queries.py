"""The near end of a request: bodies -> queries, and what is said of wrong ones."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from service.bodies import JSON
from service.errors import InvalidRequest, TooManyCandidates
from service.queries import new_request_id, parse_query, read_content, request_id_of
from service.values import (
    FusionChoice,
    Query,
)

NAN, INF = math.nan, math.inf
COLUMNS = {"ids": ["a", "b"], "features": {"price": [1.5, None]}}


def body(**changes: Any) -> dict[str, Any]:
    return {"user": {"id": "u"}, "candidates": {"ids": ["a", "b"]}} | changes


def parse(content: Any, header_id: str | None = "header", most: int = 3) -> tuple[Query, bool]:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    read = read_content(raw, JSON)
    request_id = request_id_of(read) or header_id or new_request_id()
    return parse_query(read, request_id, arrived=100.0, timeout_s=0.5, max_candidates=most)


def refused(content: Any) -> list[tuple[str, str]]:
    with pytest.raises(InvalidRequest) as caught:
        parse(content)
    return [(each.loc, each.msg) for each in caught.value.errors]


def test_a_small_request_has_sensible_defaults() -> None:
    query, columns = parse(body())
    assert not columns
    assert query.request_id == "header"
    assert (query.model, query.version, query.top_k, query.explain) == (None, None, None, False)
    assert (query.user_key, query.user_features, query.context) == ("u", {}, {})
    assert (query.item_ids, query.item_features) == (["a", "b"], {})
    assert query.fusion == FusionChoice(None, {}, None)
    assert (query.arrived, query.deadline) == (100.0, 100.5)


def test_a_full_request_is_read_whole() -> None:
    query, columns = parse(
        body(
            request_id="r-1",
            model="movielens",
            version=3,
            user={"id": 196, "features": {"age": 49}},
            context={"hour": 21},
            candidates=COLUMNS,
            fusion={"name": "video", "weights": {"like": 2}},
            top_k=1,
            timeout_ms=50,
            format="columns",
            explain=True,
        )
    )
    assert columns
    assert query.request_id == "r-1"
    assert (query.model, query.version, query.top_k, query.explain) == ("movielens", 3, 1, True)
    assert (query.user_key, query.user_features) == ("196", {"age": 49})
    assert query.context == {"hour": 21}
    assert query.item_features == {"price": [1.5, None]}
    assert query.fusion == FusionChoice("video", {"like": 2}, None)
    assert query.deadline == pytest.approx(100.05)


def test_rows_and_columns_are_the_same_query() -> None:
    rows = [
        {"id": "a", "features": {"price": 1.5, "tags": ["x"]}},
        {"id": 7, "features": {"brand": "acme"}},
        {"id": "c"},
    ]
    columns = {
        "ids": ["a", 7, "c"],
        "features": {
            "price": [1.5, None, None],
            "tags": [["x"], None, None],
            "brand": [None, "acme", None],
        },
    }
    assert parse(body(candidates=rows)) == parse(body(candidates=columns))


def test_ids_are_answered_as_they_came_and_looked_up_as_text() -> None:
    query, _ = parse(
        body(user={"id": 7}, candidates={"ids": [1, "2", 2**64 - 1, -(2**63)]}), most=4
    )
    assert query.item_ids == [1, "2", 2**64 - 1, -(2**63)]
    assert query.item_keys == ["1", "2", "18446744073709551615", "-9223372036854775808"]
    assert query.user_key == "7"


def test_the_fusion_may_be_a_name_an_object_or_a_formula() -> None:
    assert parse(body(fusion="video"))[0].fusion == FusionChoice("video")
    weights = FusionChoice("default", {"w": 2.0}, None)
    assert parse(body(fusion={"weights": {"w": 2.0}}))[0].fusion == weights
    formula = parse(body(fusion={"formula": "click * 2"}))[0].fusion
    assert formula.formula == "click * 2"


@pytest.mark.parametrize(
    ("timeout_ms", "deadline"), [(None, 100.5), (1, 100.001), (499.5, 100.4995), (10_000, 100.5)]
)
def test_a_request_may_only_shorten_its_time(timeout_ms: float | None, deadline: float) -> None:
    assert parse(body(timeout_ms=timeout_ms))[0].deadline == pytest.approx(deadline)


def test_a_request_id_is_made_when_none_is_sent() -> None:
    first, second = parse(body(), header_id=None)[0], parse(body(), header_id="")[0]
    assert len({first.request_id, second.request_id, new_request_id()}) == 3
    assert parse(body(request_id=None))[0].request_id == "header"


@pytest.mark.parametrize(
    ("changes", "loc", "message"),
    [
        ({"candidates": {"ids": []}}, "candidates.ids", "at least one id is needed"),
        ({"candidates": []}, "candidates.ids", "at least one id is needed"),
        ({"candidates": {}}, "candidates.ids", "Field required"),
        ({"candidates": 5}, "candidates", "must be a"),
        ({"candidates": None}, "candidates", "must be a"),
        ({"candidates": "ab"}, "candidates", "must be a"),
        ({"candidates": {"ids": "ab"}}, "candidates.ids", "must be a"),
        ({"candidates": {"ids": ["a", None]}}, "candidates.ids[1]", "must be a string or an int"),
        ({"candidates": {"ids": ["a", 1.5]}}, "candidates.ids[1]", "must be a string or an int"),
        ({"candidates": {"ids": ["a", True]}}, "candidates.ids[1]", "must be a string or an int"),
        ({"candidates": {"ids": [["a"]]}}, "candidates.ids[0]", "must be a string or an integer"),
        ({"candidates": {"ids": ["a", ""]}}, "candidates.ids[1]", "at least 1 character"),
        ({"candidates": {"ids": ["a" * 513]}}, "candidates.ids[0]", "at most 512 characters"),
        ({"candidates": {"ids": ["a", 2**64]}}, "candidates.ids[1]", "must be a string or an int"),
        (
            {"candidates": {"ids": ["a", "b", "a"]}},
            "candidates.ids",
            "duplicate ids: a; send each candidate once",
        ),
        ({"candidates": {"ids": [1, "1"]}}, "candidates.ids", "duplicate ids: 1"),
        ({"candidates": [{"id": 1}, {"id": 1}]}, "candidates.ids", "duplicate ids: 1"),
        (
            {"candidates": {"ids": ["a", "b"], "features": {"price": [1]}}},
            "candidates.features.price",
            "has 1 values for 2 ids",
        ),
        (
            {"candidates": {"ids": ["a"], "features": {"price": 1}}},
            "candidates.features.price",
            "must be a",
        ),
        ({"candidates": {"ids": ["a"], "feature": {}}}, "candidates.feature", "no such field"),
        ({"candidates": [{"id": "a"}, {}]}, "candidates[1].id", "Field required"),
        ({"candidates": [{"id": "a"}, 5]}, "candidates[1]", "must be a"),
        ({"candidates": [{"id": "a", "score": 1}]}, "candidates[0].score", "no such field"),
        (
            {"candidates": [{"id": "a", "features": [1]}]},
            "candidates[0].features",
            "must be a",
        ),
        ({"user": {}}, "user", "give id, or features, or both"),
        ({"user": {"id": None}}, "user", "give id, or features, or both"),
        ({"user": "u"}, "user", "must be a"),
        ({"user": None}, "user", "must be a"),
        ({"user": {"id": 1.0}}, "user.id", "must be a string or an integer"),
        ({"user": {"id": {}}}, "user.id", "must be a string or an integer"),
        ({"user": {"id": "u", "age": 3}}, "user.age", "no such field"),
        ({"user": {"id": "u", "features": []}}, "user.features", "must be a"),
        ({"context": []}, "context", "must be a"),
        ({"model": 5}, "model", "Input should be a valid string"),
        ({"version": 0}, "version", "greater than or equal to 1"),
        ({"version": "3"}, "version", "Input should be a valid integer"),
        ({"version": 2**63}, "version", "less than"),
        ({"version": True}, "version", "Input should be a valid integer"),
        ({"top_k": 0}, "top_k", "greater than or equal to 1"),
        ({"top_k": 1.5}, "top_k", "Input should be a valid integer"),
        ({"timeout_ms": 0}, "timeout_ms", "greater than 0"),
        ({"timeout_ms": "50"}, "timeout_ms", "Input should be a valid number"),
        ({"timeout_ms": NAN}, "body", "not JSON"),
        ({"timeout_ms": INF}, "body", "not JSON"),
        ({"format": "csv"}, "format", "Input should be 'rows' or 'columns'"),
        ({"explain": "yes"}, "explain", "Input should be a valid boolean"),
        ({"request_id": ""}, "request_id", "at least 1 character"),
        ({"request_id": "r" * 129}, "request_id", "at most 128 characters"),
        ({"fusion": 5}, "fusion", "must be a"),
        ({"fusion": {"weights": {"w": NAN}}}, "body", "not JSON"),
        ({"fusion": {"weights": {"w": "2"}}}, "fusion.weights.w", "Input should be a valid number"),
        ({"fusion": {"formula": ""}}, "fusion.formula", "at least 1 character"),
        ({"fusion": {"formula": "1" * 4097}}, "fusion.formula", "at most 4096 characters"),
        (
            {"fusion": {"name": "a", "formula": "b"}},
            "fusion",
            "give a name or a formula, not both",
        ),
        ({"fusion": {"weight": {}}}, "fusion.weight", "no such field"),
        ({"fussion": "default"}, "fussion", "no such field"),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, Any], loc: str, message: str) -> None:
    ((found_loc, found),) = refused(body(**changes))
    assert found_loc == loc
    assert message in found


@pytest.mark.parametrize(
    ("changes", "loc"),
    [
        ({"strategy": 1}, "strategy"),
        ({"interest": 1}, "interest"),
        ({"user": {"id": "u", "string": 1}}, "user.string"),
        (
            {"candidates": {"ids": ["a"], "features": {"interest": 5}}},
            "candidates.features.interest",
        ),
        ({"candidates": {"ids": ["a"], "features": {"stream": 5}}}, "candidates.features.stream"),
        ({"candidates": {"ids": ["a"], "features": {"rows": 5}}}, "candidates.features.rows"),
        ({"candidates": {"ids": ["a"], "features": {"columns": 5}}}, "candidates.features.columns"),
        ({"fusion": {"weights": {"interest": "x"}}}, "fusion.weights.interest"),
    ],
)
def test_a_wrong_field_is_named_whatever_its_name(changes: dict[str, Any], loc: str) -> None:
    assert [found for found, _ in refused(body(**changes))] == [loc]


def test_all_wrong_fields_are_named_at_once() -> None:
    found = refused(body(user={}, top_k=0, candidates={"ids": [], "featres": 1}))
    assert sorted(loc for loc, _ in found) == [
        "candidates.featres",
        "candidates.ids",
        "top_k",
        "user",
    ]
    with pytest.raises(InvalidRequest, match=r"\(and 1 more\)$"):
        parse(body(top_k=0, version=0))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"user": {"id": "u"}, "candidates": {"ids": ["\xff"]}}',
        b'{"user": {"id": "\\ud800"}, "candidates": {"ids": ["a"]}}',
        b'{"user": {"id": "u", "features": {"a": 1e999}}, "candidates": {"ids": ["a"]}}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"{}{}",
    ],
)
def test_what_is_no_json_is_refused(raw: bytes) -> None:
    ((loc, message),) = refused(raw)
    assert loc == "body"
    assert message.startswith("not JSON: ")


@pytest.mark.parametrize("raw", [b"[]", b"5", b"null", b'"text"', b"[{}]"])
def test_what_is_no_object_is_refused(raw: bytes) -> None:
    ((loc, _),) = refused(raw)
    assert loc in ("", "body")


def test_too_many_candidates() -> None:
    assert len(parse(body(candidates={"ids": [1, 2, 3]}), most=3)[0].item_ids) == 3
    for candidates in ({"ids": [1, 2, 3, 4]}, [{"id": each} for each in range(4)]):
        with pytest.raises(TooManyCandidates, match="4 candidates, at most 3 are allowed"):
            parse(body(candidates=candidates), most=3)
