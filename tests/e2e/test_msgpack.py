"""Bodies in msgpack: the same schema, the same answers."""

from __future__ import annotations

import ormsgpack
import pytest

from tests.e2e.asking import REQUEST, problem
from tests.servers import Service

MSGPACK = "application/msgpack"


@pytest.mark.parametrize("route", ["/rank", "/score"])
@pytest.mark.parametrize("form", ["rows", "columns"])
def test_an_answer_is_the_same_in_both_forms(service: Service, route: str, form: str) -> None:
    body = REQUEST | {"format": form, "request_id": "same"}
    as_json = service.http.post(route, json=body).json()
    packed = service.http.post(
        route, content=ormsgpack.packb(body), headers={"content-type": MSGPACK}
    )
    assert packed.status_code == 200
    assert packed.headers["content-type"] == MSGPACK
    as_msgpack = ormsgpack.unpackb(packed.content)
    for answer in (as_json, as_msgpack):
        del answer["timing_ms"]
    numbers = pytest.approx  # JSON writes a float32 with the digits it has, msgpack as a double
    if form == "columns":
        for task, scores in as_json.pop("tasks").items():
            assert as_msgpack["tasks"][task] == numbers(scores, rel=1e-6)
        del as_msgpack["tasks"]
    assert as_msgpack == as_json


def test_accept_chooses_the_form_of_the_answer(service: Service) -> None:
    headers = {"accept": MSGPACK}
    answer = service.http.post("/rank", json=REQUEST, headers=headers)
    assert ormsgpack.unpackb(answer.content)["model"] == {"name": "synthetic", "version": 1}
    headers = {"content-type": MSGPACK, "accept": "application/json"}
    body = ormsgpack.packb(REQUEST)
    assert service.http.post("/rank", content=body, headers=headers).json()["degraded"] is None


def test_what_is_not_msgpack_is_named(service: Service) -> None:
    headers = {"content-type": MSGPACK}
    answer = service.http.post("/rank", content=b"\xc1{", headers=headers)
    content = problem(answer, 422, "invalid_request")
    assert content["errors"][0]["loc"] == "body"
    assert "not msgpack" in content["detail"]
