"""Rules pick the fusion of a request that names none, and the answer says which and why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.asking import CONTEXT, IDS, REQUEST, USER, problem
from tests.e2e.test_fusion_files import write
from tests.published import MODEL, ModelsDirectory
from tests.servers import Service, eventually

RULES = """
context: {scene: text}
experiments: {half: {control: 50, likes: 50}}
rules:
  late: {when: context.scene == "home" and context.hour >= 20, fusion: calm}
  likes: {when: experiment.half == "likes", fusion: likes}
"""


@pytest.fixture(scope="module")
def models(trained_models: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelsDirectory:
    directory = tmp_path_factory.mktemp("ruled") / "models"
    models = ModelsDirectory.create(directory, trained_models)
    write(models.fusion.with_name("calm.yaml"), "formula: watch_seconds")
    write(models.fusion.with_name("likes.yaml"), "formula: like")
    write(models.fusion.with_name("rules.yaml"), RULES)
    return models


@pytest.fixture(scope="module")
def ruled(models: ModelsDirectory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    running = Service(models.path, tmp_path_factory.mktemp("serve"), {})
    try:
        yield running.wait_ready()
    finally:
        running.stop()


def used(service: Service, user: str = USER, **context: object) -> tuple[str, str | None]:
    body = {"user": {"id": user}, "context": context, "candidates": {"ids": IDS}}
    fusion = service.rank(**body)["fusion"]
    return fusion["name"], fusion["rule"]


def test_a_rule_over_the_context(ruled: Service) -> None:
    assert used(ruled, hour=20, scene="home") == ("calm", "late")
    assert used(ruled, hour=19, scene="home")[1] != "late"
    assert used(ruled, hour=20)[1] != "late"


def test_what_a_request_names_comes_before_the_rules(ruled: Service) -> None:
    late = REQUEST | {"context": {"hour": 23, "scene": "home"}}
    for fusion in ("default", {"name": "default"}, {"weights": {"like_weight": 2}}):
        answer = ruled.rank(**late, fusion=fusion)["fusion"]
        assert (answer["name"], answer["rule"]) == ("default", None)


def test_an_experiment_stays_with_the_user(ruled: Service) -> None:
    chosen = {f"u{n}": used(ruled, f"u{n}", **CONTEXT) for n in range(24)}
    assert set(chosen.values()) == {("default", None), ("likes", "likes")}
    assert chosen == {user: used(ruled, user, **CONTEXT) for user in chosen}


def test_a_field_of_the_rules_is_not_the_models(ruled: Service) -> None:
    scored = ruled.ask("/score", REQUEST | {"context": {**CONTEXT, "scene": "home"}})
    assert scored["items"] == ruled.ask("/score", REQUEST)["items"]
    answer = ruled.rank(**REQUEST | {"context": {**CONTEXT, "scene": "detail"}}, explain=True)
    assert answer["degraded"] is None


def test_a_field_that_nobody_reads_or_of_another_type_is_refused(ruled: Service) -> None:
    unknown = ruled.http.post("/rank", json=REQUEST | {"context": {"scen": "home"}})
    assert problem(unknown, 422, "invalid_request")["errors"][0]["loc"] == "context.scen"
    number = ruled.http.post("/rank", json=REQUEST | {"context": {"scene": 1.5}})
    (error,) = problem(number, 422, "invalid_request")["errors"]
    assert error == {"loc": "context", "msg": "context.scene must be a text, not 1.5"}


def test_rules_change_by_themselves_and_wrong_ones_stay_out(
    ruled: Service, models: ModelsDirectory
) -> None:
    rules = models.fusion.with_name("rules.yaml")
    before = ruled.model(MODEL)["fusions"]["rules"]
    write(rules, RULES.replace("context.hour", "context.our"))
    ruled.expect_in_log(r"fusion rules refused \(\w+ stays\): rules\.yaml:5:\d+: unknown name")
    assert used(ruled, hour=20, scene="home") == ("calm", "late")
    assert "context.our" in ruled.model(MODEL)["fusions_refused"]["rules"]

    write(rules, RULES.replace("20", "21"))
    eventually(lambda: ruled.model(MODEL)["fusions"]["rules"] != before)
    assert used(ruled, hour=20, scene="home")[1] != "late"
    assert used(ruled, hour=21, scene="home") == ("calm", "late")
    write(rules, RULES)
    eventually(lambda: ruled.model(MODEL)["fusions"]["rules"] == before)
