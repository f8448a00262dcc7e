"""Graphs that go on for ever: kept out, ended in requests, in nobody's way at the end."""

from __future__ import annotations

import numpy as np
import pytest

from tests.conftest import Serve
from tests.e2e.asking import CONTEXT, REQUEST, problem
from tests.e2e.damages import bring, edit_graph
from tests.e2e.test_canaries import changed
from tests.e2e.test_deployments import command, deployment
from tests.endless_graphs import endless_where
from tests.published import MODEL, ModelsDirectory
from tests.servers import eventually

EVERY_RUN = edit_graph("joint.onnx", lambda graph: endless_where(graph, above=-1e9))


def test_an_endless_version_is_refused(models_dir: ModelsDirectory, serve: Serve) -> None:
    service = serve(models_dir.path, timeout_ms=5000)
    service.allow_in_log("onnxruntime")
    version = bring(models_dir, EVERY_RUN)
    eventually(
        lambda: (found := service.version(MODEL, version)) and found["state"] == "refused",
        timeout_s=120,  # for 5 s of a processor at a low priority, beside other tests
    )
    says = "too_slow: a run took more than 5 s of a processor, and was ended"
    assert service.version(MODEL, version)["reason"] == says
    service.expect_in_log(f"version {version} refused: {says}")
    counted = {"model": MODEL, "reason": "too_slow"}
    assert service.metric("multirank_versions_refused_total", **counted) == 1
    assert service.rank(**REQUEST)["model"]["version"] == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stop_does_not_wait_for_an_endless_load(
    models_dir: ModelsDirectory, serve: Serve, workers: int
) -> None:
    service = serve(models_dir.path, workers=workers, timeout_ms=3_600_000)
    service.allow_in_log("onnxruntime")
    version = bring(models_dir, EVERY_RUN)
    eventually(lambda: (found := service.version(MODEL, version)) and found["state"] == "loading")
    service.stop()  # as it should, and in time


def test_a_canary_that_one_user_sends_on_for_ever_is_rolled_back(
    models_dir: ModelsDirectory, serve: Serve
) -> None:
    expected = models_dir.expected(1)
    items = expected.ids("item")[:50]
    users = expected.ids("user")[:60]
    largest = {user: expected.scores(user, items, CONTEXT).max() for user in users}
    user = max(largest, key=lambda each: largest[each])
    golden = np.load(models_dir.model / "1" / "golden.npz")["scores"].max()
    limit = (max(golden, *(v for each, v in largest.items() if each != user)) + largest[user]) / 2
    assert limit < largest[user]
    endless = changed(models_dir, 1, lambda graph: endless_where(graph, above=float(limit)))
    command(models_dir, "deploy", 1)
    service = serve(models_dir.path, timeout_ms=5000)
    service.allow_in_log("onnxruntime|a run of 1 requests: a run took more than 5 s")
    command(models_dir, "deploy", endless, "--canary", 100)
    eventually(lambda: (found := service.version(MODEL, endless)) and found["labels"])
    asked = {"user": {"id": user}, "context": CONTEXT, "candidates": {"ids": items}}
    content = problem(service.http.post("/rank", json=asked), 500, "inference_failed")
    assert "a run took more than 5 s of a processor, and was ended" in content["detail"]
    service.expect_in_log(
        "rollback by the guard .*: 1 of its runs took so long that they were ended"
    )
    eventually(lambda: deployment(models_dir)["roles"]["canary"] is None)
    eventually(lambda: service.version(MODEL, endless)["state"] == "closed")
    answer = service.rank(**asked)
    assert answer["model"]["version"] == 1
    assert answer["degraded"] is None
