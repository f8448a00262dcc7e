"""/admin changes formulas: checked, live at once, audited, and back again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.asking import REQUEST, problem
from tests.e2e.test_fusion_files import fusion_of
from tests.published import MODEL, ModelsDirectory
from tests.servers import Service

HEADERS = {"Authorization": "Bearer a token", "From": "ann@example.com"}


@pytest.fixture(scope="module")
def served(trained_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    models = ModelsDirectory.create(tmp_path_factory.mktemp("admin") / "models", trained_models)
    settings = {"admin_token": "a token"}
    running = Service(models.path, tmp_path_factory.mktemp("serve"), settings)
    try:
        yield running.wait_ready()
    finally:
        running.stop()


def call(service: Service, method: str, path: str, body: Any = None) -> httpx.Response:
    url = f"/admin/models/{MODEL}/fusions/{path}"
    return service.http.request(method, url, json=body, headers=HEADERS)


def put(service: Service, name: str, content: str) -> httpx.Response:
    return call(service, "PUT", name, {"content": content})


def test_a_formula_is_replaced_at_once_and_brought_back(served: Service) -> None:
    first = fusion_of(served)
    answer = put(served, "default", "formula: click * like\n")
    assert answer.status_code == 200, answer.text
    second = answer.json()["after"]
    assert answer.json() == {"name": "default", "before": first, "after": second, "remark": ""}
    assert fusion_of(served) == second

    back = call(served, "POST", "default/rollback", {})
    assert (back.status_code, back.json()["after"]) == (200, first), back.text
    assert fusion_of(served) == first
    again = call(served, "POST", "default/rollback", {"version": second[:5]})
    assert (again.json()["after"], fusion_of(served)) == (second, second)

    entries = call(served, "GET", "default/history").json()["entries"]
    assert [each["version"] for each in entries][-4:] == [first, second, first, second]
    assert entries[-1]["by"].startswith("ann@example.com (127.0.0.1")
    audited = [json.loads(line.split("audit ")[1]) for line in audit_lines(served)]
    assert {"who": entries[-1]["by"], "what": f"fusion {MODEL} default", "before": first,
            "after": second} in audited  # fmt: skip


def audit_lines(service: Service) -> list[str]:
    return [line for line in service.log().splitlines() if "multirank.audit" in line]


def test_an_heir_gets_its_ancestors_back_as_they_were(served: Service) -> None:
    base, heir = "formula: click ** w\nweights: {w: 1}\n", "inherits: base\nweights: {w: 2}\n"
    put(served, "base", base)
    old = put(served, "heir", heir).json()["after"]
    put(served, "heir", "formula: click\n")
    put(served, "base", base.replace("click", "like"))
    back = call(served, "POST", "heir/rollback", {"version": old}).json()
    assert back["after"] == old
    assert "base changed since" in back["remark"]


def test_rules_are_put_and_brought_back_too(served: Service) -> None:
    put(served, "likes", "formula: like\n")
    late = "rules: {late: {when: context.hour >= 20, fusion: likes}}\n"
    first = put(served, "rules", late)
    assert first.status_code == 200, first.text
    assert served.rank(**REQUEST)["fusion"]["rule"] == "late"
    put(served, "rules", late.replace("20", "21"))
    assert served.rank(**REQUEST)["fusion"]["rule"] is None
    call(served, "POST", "rules/rollback", {})
    assert served.rank(**REQUEST)["fusion"]["rule"] == "late"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("default", "formula: clik", "default.yaml:1:10: unknown name 'clik'; did you mean "),
        ("default", "formula: [", "default.yaml:1:10: "),
        ("default", "formula: click > 1", "must give a number, this is a boolean"),
        ("default", "formula: click * w\nweights: {w: {default: 3, minimum: 0, maximum: 2}}",
         "default.yaml:2:24: the default 3 is not within 0 .. 2"),
        ("rules", "rules: {a: {when: 1, fusion: default}}", "must give a boolean"),
        ("inline", "formula: click", "'inline' means a formula given in a request"),
        ("parent", "formula: like", "child.yaml:2:18: unknown name 'w'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_and_changes_nothing(
    served: Service, name: str, content: str, says: str
) -> None:
    put(served, "parent", "formula: click * w\nweights: {w: 1}\n")
    put(served, "child", "inherits: parent\nformula: click * w\n")
    before = served.model(MODEL)["fusions"]
    answer = put(served, name, content)
    error = problem(answer, 422, "invalid_request")["errors"][0]
    assert error["loc"] == "content"
    assert says in error["msg"]
    assert served.model(MODEL)["fusions"] == before


def test_what_is_not_there(served: Service) -> None:
    unknown = served.http.put(
        "/admin/models/other/fusions/default", json={"content": ""}, headers=HEADERS
    )
    problem(unknown, 404, "unknown_model")
    assert call(served, "GET", "nothing/history").json() == {"entries": []}
    nothing = call(served, "POST", "nothing/rollback", {})
    assert "has no earlier version" in problem(nothing, 409, "conflict")["detail"]
    problem(put(served, "a.b", "formula: click"), 422, "invalid_request")
    bare = served.http.put(f"/admin/models/{MODEL}/fusions/x", json={"content": "formula: like"})
    problem(bare, 401, "unauthorized")
