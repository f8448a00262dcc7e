"""The deployment file decides: changed by the command line or /admin, followed by the service."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from typing import Any

import pytest

from tests.conftest import Serve
from tests.e2e.asking import GOOD, REQUEST, problem
from tests.published import MODEL, ModelsDirectory
from tests.servers import Service, eventually, multirank

TOKEN = "a token"
HEADERS = {"Authorization": f"Bearer {TOKEN}", "From": "ann@example.com"}
CONVERGED_S = 2.0


def command(models: ModelsDirectory, name: str, *arguments: object) -> str:
    """Run a command that must succeed; returns what it printed."""
    ended = multirank(name, MODEL, *arguments, "--models", models.path)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def deployment(models: ModelsDirectory) -> Any:
    """The file as it is."""
    return json.loads((models.model / "deployment.json").read_text())


def answering(service: Service, users: int = 60) -> Counter[int]:
    """How many of so many users each version answers."""
    found: Counter[int] = Counter()
    for user in range(users):
        body = GOOD | {"user": {"id": f"u{user}"}}
        found[service.rank(**body)["model"]["version"]] += 1
    return found


@pytest.fixture
def three(models_dir: ModelsDirectory) -> ModelsDirectory:
    """Three versions: 1, 2, and 1's weights once more."""
    models_dir.publish(2)
    models_dir.publish(1)
    return models_dir


def test_the_worker_that_hears_of_a_change_tells_the_others(
    three: ModelsDirectory, serve: Serve
) -> None:
    never = 3_600_000
    service = serve(three.path, workers=3, admin_token=TOKEN, poll_interval_ms=never)
    for version in (1, 2):
        url = f"/admin/models/{MODEL}/deploy"
        answer = service.http.post(url, json={"version": version}, headers=HEADERS)
        assert answer.status_code == 200, answer.text

        def all_serve(version: int = version) -> bool:
            model = service.model(MODEL)
            stable = [each["stable"] for each in model["workers"]]
            return bool(model["converged"]) and stable == [version] * 3

        eventually(all_serve)


def test_deploy_promote_and_rollback(three: ModelsDirectory, serve: Serve) -> None:
    service = serve(three.path)
    assert answering(service, 1) == {3: 1}

    printed = command(three, "deploy", 1, "--reason", "3 is too new")
    assert printed.splitlines() == [
        f"{MODEL}: was generation 0: stable newest",
        f"{MODEL}: now generation 1: stable 1",
    ]
    eventually(lambda: answering(service, 1) == {1: 1})
    assert eventually(lambda: service.version(MODEL, 3)["state"] == "closed")

    command(three, "deploy", 2, "--canary", 30)
    eventually(lambda: service.version(MODEL, 2))
    eventually(lambda: len(answering(service)) == 2)
    found = answering(service)  # the first may have begun before the canary came
    assert 5 <= found[2] <= 32
    assert answering(service) == found  # a user stays with a version
    states = {v["version"]: (v["labels"], v["traffic"]) for v in service.model(MODEL)["versions"]}
    assert states[1] == (["stable"], 0.7)
    assert states[2] == (["canary"], 0.3)
    nobody = {"user": {"features": {"age": 30}}, "candidates": GOOD["candidates"]}
    assert {service.rank(**nobody)["model"]["version"] for _ in range(20)} == {1}

    command(three, "promote")
    eventually(lambda: answering(service) == {2: 60})
    command(three, "rollback", "--reason", "worse")
    eventually(lambda: answering(service) == {1: 60})
    written = deployment(three)
    assert (written["generation"], written["roles"]["stable"]) == (4, 1)
    actions = [(each["action"], each["reason"]) for each in written["history"]]
    assert actions == [
        ("deploy", "3 is too new"),
        ("canary", ""),
        ("promote", ""),
        ("rollback", "worse"),
    ]
    assert service.metric("multirank_deployment_generation", model=MODEL) == 4


def test_the_policy_of_following_can_be_turned_off_and_on(
    models_dir: ModelsDirectory, serve: Serve
) -> None:
    service = serve(models_dir.path)
    command(models_dir, "deploy", 1)
    models_dir.publish(2)
    eventually(lambda: service.model(MODEL)["deployment"]["generation"] == 1)
    time.sleep(0.5)
    assert service.version(MODEL, 2) is None
    assert answering(service, 1) == {1: 1}

    command(models_dir, "deploy", "newest")
    eventually(lambda: answering(service, 1) == {2: 1})


def test_a_pinned_version_stays_loaded_and_a_shadow_answers_nobody(
    three: ModelsDirectory, serve: Serve
) -> None:
    service = serve(three.path)
    command(three, "deploy", 1, "--pin", 2)
    command(three, "deploy", 3, "--shadow", 0.5)
    model: Any = eventually(
        lambda: (
            model
            if (model := service.model(MODEL))["converged"]
            and len(model["versions"]) == 3
            and model["workers"][0]["shadow"] == 3
            else None
        )
    )
    assert {v["version"]: v["labels"] for v in model["versions"]} == {
        1: ["stable"],
        2: ["pinned"],
        3: ["shadow"],
    }
    assert service.rank(**REQUEST, version=2)["model"]["version"] == 2
    assert answering(service, 20) == {1: 20}
    command(three, "deploy", "--pin", 0)
    eventually(lambda: service.version(MODEL, 2)["state"] == "closed")


def test_admin_calls_change_the_file_and_leave_an_audit_line(
    three: ModelsDirectory, serve: Serve
) -> None:
    service = serve(three.path, admin_token=TOKEN)
    at = f"/admin/models/{MODEL}"

    def call(name: str, **body: Any) -> Any:
        answer = service.http.post(f"{at}/{name}", json=body, headers=HEADERS)
        assert answer.status_code == 200, answer.text
        return answer.json()

    assert call("deploy", version=1, reason="try")["roles"]["stable"] == 1
    assert call("canary", canary={"version": 2, "percent": 50})["generation"] == 2
    assert call("rollback")["roles"]["canary"] is None
    assert call("shadow", shadow={"version": 2, "sample": 0.1})["roles"]["shadow"]["version"] == 2
    assert call("shadow", shadow=None)["roles"]["shadow"] is None
    assert call("pin", versions=[3])["roles"]["pinned"] == [3]
    shown = service.http.get(f"{at}/deployment", headers=HEADERS).json()
    assert shown == deployment(three)
    assert {entry["by"] for entry in shown["history"]} == {"ann@example.com (127.0.0.1)"}
    lines = [line for line in service.log().splitlines() if "audit " in line]
    assert len(lines) == 6
    first = json.loads(lines[0].split("audit ")[1])
    assert (first["who"], first["what"]) == ("ann@example.com (127.0.0.1)", f"deploy {MODEL}")
    assert (first["before"]["roles"]["stable"], first["after"]["roles"]["stable"]) == ("newest", 1)

    def refused(name: str, status: int, code: str, **body: Any) -> str:
        answer = service.http.post(f"{at}/{name}", json=body, headers=HEADERS)
        return str(problem(answer, status, code)["detail"])

    assert "no canary" in refused("promote", 409, "conflict")
    assert "version 9" in refused("pin", 409, "conflict", versions=[9])
    assert "version 9 is not published" in refused("deploy", 409, "conflict", version=9)
    assert "meant for 1" in refused("deploy", 409, "conflict", version=2, generation=1)
    assert "body.version" in refused("deploy", 422, "invalid_request", version="latest")
    assert "percent" in refused("canary", 422, "invalid_request", canary={"version": 2})
    unknown = service.http.post("/admin/models/none/deploy", json={"version": 1}, headers=HEADERS)
    problem(unknown, 404, "unknown_model")
    assert deployment(three)["generation"] == 6


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("deploy", MODEL, 9), "version 9 is not published"),
        (("deploy", MODEL, "latest"), "a number or newest"),
        (("deploy", MODEL, 1, "--canary", 10, "--guard", "max_psy=1"), "max_psy"),
        (("deploy", MODEL), "name a VERSION"),
        (("promote", MODEL), "no canary to promote"),
        (("rollback", MODEL), "no version before 1"),
        (("rollback", "nothing"), "no version is published"),
        (("rollback", MODEL, "--generation", 7), "meant for 7"),
    ],
)
def test_commands_that_do_not_fit_say_so(
    models_dir: ModelsDirectory, arguments: tuple[object, ...], says: str
) -> None:
    ended = multirank(*arguments, "--models", models_dir.path)
    assert ended.returncode in (1, 2)
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (models_dir.model / "deployment.json").exists()


def test_a_damaged_deployment_file_changes_nothing_that_is_served(
    three: ModelsDirectory, serve: Serve
) -> None:
    service = serve(three.path)
    command(three, "deploy", 1)
    eventually(lambda: answering(service, 1) == {1: 1})
    file = three.model / "deployment.json"
    right = file.read_text()
    file.write_text(right[: len(right) // 2])
    service.expect_in_log("deployment refused: .*deployment.json: .*the last deployment stays")
    model = service.model(MODEL)
    assert "deployment.json" in model["problem"]
    assert not model["converged"]
    assert answering(service, 1) == {1: 1}

    beginning = serve(three.path, ready=False)
    beginning.expect_in_log("deployment refused: .*nothing is served")
    problem(beginning.http.post("/rank", json=GOOD), 503, "no_active_model")
    # however often it was looked at meanwhile
    assert service.metric("multirank_deployments_refused_total", model=MODEL) == 1
    file.write_text(right)
    eventually(lambda: beginning.http.get("/readyz").status_code == 200)
    eventually(lambda: service.model(MODEL)["converged"])


def test_killed_in_the_middle_of_a_swap_the_file_decides(
    three: ModelsDirectory, serve: Serve
) -> None:
    command(three, "deploy", 1)
    for number in range(3):
        service = serve(three.path)
        stable = deployment(three)["roles"]["stable"]
        assert answering(service, 1) == {stable: 1}
        command(three, "deploy", 2 if stable == 1 else 1)
        time.sleep(0.15 * number)
        os.kill(service.process.pid, signal.SIGKILL)
        service.process.wait()
        service.killed()
    assert not list(three.model.glob(".deployment.json*"))


def test_a_refused_stable_version_leaves_the_one_before_after_a_restart(
    three: ModelsDirectory, serve: Serve
) -> None:
    command(three, "deploy", 1)
    command(three, "deploy", 2)
    (three.model / "2" / "joint.onnx").write_bytes(b"damaged since")
    service = serve(three.path)
    service.expect_in_log("version 2 refused: digest_mismatch: .*none is live")
    assert answering(service, 1) == {1: 1}
    assert service.version(MODEL, 2)["state"] == "refused"


def test_models_have_limits_of_their_own(models_dir: ModelsDirectory, serve: Serve) -> None:
    other = models_dir.copy_as_model("other", trained_version=2)
    service = serve(models_dir.path)
    printed = command(models_dir, "deploy", "--limit", "max_candidates=1")
    assert "max_candidates 1" in printed
    eventually(lambda: service.http.post("/rank", json=GOOD | {"model": MODEL}).status_code == 413)
    content = problem(
        service.http.post("/rank", json=GOOD | {"model": MODEL}), 413, "too_many_candidates"
    )
    assert "this model allows 1" in content["detail"]
    assert service.rank(**GOOD, model=other)["model"]["name"] == other
    command(models_dir, "deploy", "--limit", "timeout_ms=0.001")
    late = eventually(
        lambda: (
            answer
            if (answer := service.http.post("/score", json=GOOD | {"model": MODEL})).status_code
            == 504
            else None
        )
    )
    assert late is not None
    problem(late, 504, "deadline_exceeded")
