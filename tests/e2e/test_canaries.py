"""A canary that is bad is rolled back by itself, a good one promoted; a shadow answers nobody."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.conftest import Serve
from tests.e2e.asking import CONTEXT
from tests.e2e.test_deployments import command, deployment
from tests.published import MODEL, ModelsDirectory, reseal
from tests.servers import WAIT_S, Service, eventually, multirank

USERS = 40
CANDIDATES = [f"i{number}" for number in range(40)]


@contextmanager
def load(service: Service, per_s: float = 50.0) -> Iterator[list[httpx.Response]]:
    """Requests at a steady rate for as long as the block lasts; all their answers."""
    answers: list[httpx.Response] = []
    enough = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=service.url, timeout=WAIT_S) as client:
            due = time.monotonic()
            while not enough.is_set():
                user = {"id": f"u{len(answers) % USERS}"}
                body = {"user": user, "context": CONTEXT, "candidates": {"ids": CANDIDATES}}
                answers.append(client.post("/rank", json=body))
                due += 1 / per_s
                time.sleep(max(0.0, due - time.monotonic()))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answers
    finally:
        enough.set()
        thread.join()


def changed(
    models: ModelsDirectory, trained: int, change: Callable[[onnx.ModelProto], object]
) -> int:
    """Publish a trained version with a changed joint graph that does what its golden rows say."""
    version = models.next_version()
    source = models.path.parent / f"changed-{version}"
    shutil.copytree(models.trained / MODEL / str(trained), source)
    graph = onnx.load(source / "joint.onnx")
    change(graph)
    onnx.save(graph, source / "joint.onnx")
    reseal(source)
    _new_golden_scores(source)
    shutil.move(source, models.model / f".{version}")
    reseal(models.model / f".{version}", version=version)
    (models.model / f".{version}").rename(models.model / str(version))
    return version


def _new_golden_scores(source: Path) -> None:
    from bundle.store import load as load_bundle
    from service.metrics import Metrics
    from service.scoring.item_cache import UNCACHED
    from service.scoring.stages import open_model
    from service.values import Candidates, UserSide

    bundle = load_bundle(source)
    golden = bundle.golden()
    model = open_model(bundle, bundle.encoder(), 1, 0, Metrics())
    items = Candidates(golden.items, np.full(len(golden.items), UNCACHED, np.uint64))
    users = UserSide(golden.users, golden.contexts)
    with np.load(source / "golden.npz") as archive:
        arrays = dict(archive)
    arrays["scores"] = model.score(users, [items], golden.user_row)
    np.savez(source / "golden.npz", **arrays)
    reseal(source)


def output_through(graph: onnx.ModelProto, *nodes: onnx.NodeProto, **constants: Any) -> None:
    """Let nodes stand between what the graph gave, now `before`, and what it gives."""
    (output,) = graph.graph.output
    for node in graph.graph.node:
        for place, name in enumerate(node.output):
            if name == output.name:
                node.output[place] = "before"
    for name, value in constants.items():
        graph.graph.initializer.append(numpy_helper.from_array(value, name))
    graph.graph.node.extend(nodes)


def inverted(graph: onnx.ModelProto) -> None:
    """What was best is worst: the scores of a shifted sign."""
    (output,) = graph.graph.output
    node = helper.make_node("Div", ["one", "before"], [output.name])
    output_through(graph, node, one=np.array(0.01, np.float32))


def slow(graph: onnx.ModelProto) -> None:
    """The same scores, after much work for nothing."""
    (output,) = graph.graph.output
    size = 384
    nodes = [helper.make_node("MatMul", ["big", "big"], ["work0"])]
    nodes += [helper.make_node("MatMul", [f"work{n}", "big"], [f"work{n + 1}"]) for n in range(3)]
    nodes += [
        helper.make_node("Slice", ["before", "from", "to"], ["few"]),
        helper.make_node("ReduceMin", ["few"], ["small"], keepdims=0),
        helper.make_node("Mul", ["small", "zero"], ["nothing"]),
        helper.make_node("Add", ["seed", "nothing"], ["big"]),
        helper.make_node("ReduceSum", ["work3"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "zero"], ["nought"]),
        helper.make_node("Add", ["before", "nought"], [output.name]),
    ]
    output_through(
        graph,
        *(nodes[4:8] + nodes[:4] + nodes[8:]),
        seed=np.full((size, size), 1e-3, np.float32),
        zero=np.array(0, np.float32),
        **{"from": np.array([0], np.int64), "to": np.array([1], np.int64)},
    )


def failing(graph: onnx.ModelProto) -> None:
    """No run of exactly 40 candidates succeeds."""
    (output,) = graph.graph.output
    nodes = [
        helper.make_node("Shape", ["before"], ["rows"], start=0, end=1),
        helper.make_node("Equal", ["rows", "forty"], ["is_forty"]),
        helper.make_node("Cast", ["is_forty"], ["place"], to=TensorProto.INT64),
        helper.make_node("Gather", ["only", "place"], ["one"]),
        helper.make_node("Mul", ["before", "one"], [output.name]),
    ]
    output_through(graph, *nodes, forty=np.array([40], np.int64), only=np.array([1], np.float32))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (inverted, "kendall_tau"),
        (slow, "latency_ratio"),
        (failing, "failed"),
    ],
)
def test_a_bad_canary_is_rolled_back(
    models_dir: ModelsDirectory,
    serve: Serve,
    change: Callable[[onnx.ModelProto], object],
    says: str,
) -> None:
    bad = changed(models_dir, 1, change)
    command(models_dir, "deploy", 1)
    service = serve(models_dir.path)
    service.allow_in_log("a run of one request failed|Traceback|onnxruntime|Exception|indices")
    with load(service) as answers:
        eventually(lambda: len(answers) > 10)
        soon = () if change is inverted else ("--guard", "min_requests=60")
        command(models_dir, "deploy", bad, "--canary", 50, *soon)
        started = time.monotonic()
        eventually(lambda: deployment(models_dir)["roles"]["canary"] is None, 60)
        took = time.monotonic() - started
        eventually(lambda: service.version(MODEL, bad)["state"] == "closed")
        several = len(answers) + 20
        eventually(lambda: len(answers) > several)
    assert took < 60
    entry = deployment(models_dir)["history"][-1]
    assert (entry["action"], entry["by"]) == ("rollback", "the guard of the canary")
    assert says in entry["reason"]
    service.expect_in_log(rf"rollback by the guard of the canary: version {bad}: .*{says}")
    decided = {"model": MODEL, "decision": "rollback"}
    assert service.metric("multirank_canary_decisions_total", **decided) == 1
    ended = service.http.get(f"/models/{MODEL}/compare").json()["ended"]
    assert (ended["ended"], ended["new"]) == ("rollback", bad)
    assert {each.json()["model"]["version"] for each in answers[-20:]} == {1}
    if change is not failing:
        assert {each.status_code for each in answers} == {200}


def test_a_good_canary_is_promoted(models_dir: ModelsDirectory, serve: Serve) -> None:
    good = models_dir.publish(1)
    command(models_dir, "deploy", 1)
    service = serve(models_dir.path)
    with load(service) as answers:
        command(models_dir, "deploy", good, "--canary", 20, "--promote-after", 120)
        eventually(lambda: deployment(models_dir)["roles"]["stable"] == good, 60)
        eventually(lambda: service.model(MODEL)["converged"])
        service.expect_in_log("promote by the guard of the canary")
    assert {each.status_code for each in answers} == {200}
    ended = service.http.get(f"/models/{MODEL}/compare").json()["ended"]
    assert ended["ended"] == "promote"
    assert ended["kendall_tau"] == pytest.approx(1.0)
    assert ended["top_k_overlap"] == 1.0
    assert max(ended["psi"].values()) < 1e-6
    assert 0.5 < ended["latency_ratio"] < 2.0


def test_promote_may_require_what_was_seen(models_dir: ModelsDirectory, serve: Serve) -> None:
    good = models_dir.publish(1)
    command(models_dir, "deploy", 1)
    service = serve(models_dir.path, admin_token="a token")
    command(models_dir, "deploy", good, "--canary", 20)

    def promote(*required: str) -> tuple[int, str]:
        options = [part for each in required for part in ("--require", each)]
        at = ("--url", service.url, "--models", models_dir.path)
        ended = multirank("promote", MODEL, *options, *at)
        return ended.returncode, ended.stderr

    eventually(lambda: service.http.get(f"/models/{MODEL}/compare").json()["canary"])
    code, said = promote("min_requests=20")
    assert code == 1
    assert "20 are required" in said
    with load(service):
        eventually(
            lambda: service.http.get(f"/models/{MODEL}/compare").json()["canary"]["compared"] > 20
        )
    code, said = promote("min_requests=20", "max_latency_ratio=0.001")
    assert code == 1
    assert "latency_ratio" in said
    answer = service.http.post(
        f"/admin/models/{MODEL}/promote",
        json={"require": {"min_requests": 20, "max_latency_ratio": 0.001}},
        headers={"Authorization": "Bearer a token"},
    )
    assert answer.status_code == 409
    assert "latency_ratio" in answer.json()["detail"]
    assert promote("min_requests=20", "max_latency_ratio=100")[0] == 0
    assert deployment(models_dir)["roles"]["stable"] == good


def test_a_shadow_is_compared_and_answers_nobody(models_dir: ModelsDirectory, serve: Serve) -> None:
    other = models_dir.publish(2)
    command(models_dir, "deploy", 1)
    service = serve(models_dir.path)
    command(models_dir, "deploy", other, "--shadow", 1)

    def compared() -> Any:
        found = service.http.get(f"/models/{MODEL}/compare").json()
        return found if (found["shadow"] or {}).get("compared", 0) > 30 else None

    with load(service) as answers:
        found = eventually(compared)
    assert {each.json()["model"]["version"] for each in answers} == {1}
    assert found["canary"] is None
    shadow = found["shadow"]
    assert (shadow["stable"], shadow["new"]) == (1, other)
    assert 0.0 <= shadow["top_k_overlap"] <= 1.0
    assert -1.0 <= shadow["kendall_tau"] < 1.0
    assert shadow["psi"]["click"] > 0
    assert shadow["answered"]["new"]["requests"] == 0
    labels = {"model": MODEL, "outcome": "compared"}
    assert service.metric("multirank_compared_total", **labels) >= shadow["compared"]
