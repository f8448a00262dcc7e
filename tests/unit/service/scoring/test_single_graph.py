"""A single graph through the gate and the batcher: users mixed, requests split, scores the same."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from bundle import manifest as manifests
from bundle import store
from bundle.packing import hash_value
from bundle.stages import SingleStage
from model_export.foreign.importing import import_graph
from model_export.foreign.specification import Specification
from service.lifecycle.gate import Gate
from service.lifecycle.pace import Pace
from service.lifecycle.refusal import Refused
from service.lifecycle.version import LoadedVersion
from service.metrics import Metrics
from service.scoring.runs import UNWATCHED
from service.values import Candidates, UserSide
from tests.foreign_graphs import CITIES, SPEC, expected, write_graph, write_spec
from tests.published import reseal

ROW_BUDGET = 16


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An unpublished bundle; its graph as it came lies beside it."""
    graph = write_graph(tmp_path / "model.onnx")
    import_graph(graph, Specification(write_spec(tmp_path / "spec.yaml")), tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.fixture
def gate() -> Iterator[Gate]:
    with ThreadPoolExecutor(1) as executor:
        yield Gate(
            digest=store.digest,
            load_features=lambda bundle, encoder: None,
            executor=executor,
            threads=1,
            row_budget=ROW_BUDGET,
            queue_rows=1000,
            item_cache_bytes=1 << 16,
            metrics=Metrics(),
            runs=UNWATCHED,
        )


def admit(gate: Gate, source: Path) -> LoadedVersion:
    models = source.parent / "models"
    store.publish(source, models)
    version = store.versions(models, "foreign")[-1]
    return gate.admit(models, "foreign", version, None, lambda state: None, Pace(False))


def request(number: int, candidates: int) -> list[dict[str, Any]]:
    """A user of its own and so many candidates, as raw rows."""
    user = {
        "user.age": 20.0 + number,
        "user.city": (*CITIES, "elsewhere")[number % 4],
        "user.history": [1 + number % 5, 9][: number % 3],
        "context.hour": number / 3,
    }
    return [user | {"item.film": i % 7, "item.price": i / 10} for i in range(candidates)]


async def score(version: LoadedVersion, rows: list[dict[str, Any]]) -> Any:
    layouts = version.encoder.layouts

    def pack(entity: Any, rows: list[dict[str, Any]]) -> Any:
        names = layouts[entity].slots
        return layouts[entity].pack(
            {name: [row[f"{entity}.{name}"] for row in rows] for name in names}, len(rows)
        )

    users = UserSide(pack("user", rows[:1]), pack("context", rows[:1]))
    items = pack("item", rows)
    candidates = Candidates(items, layouts["item"].content_hash(items))
    answer = await version.batcher.score(users, candidates, time.monotonic() + 60)
    return answer.scores


def test_requests_that_share_runs_each_get_their_own_scores(gate: Gate, source: Path) -> None:
    version = admit(gate, source)
    requests = [request(number, candidates) for number, candidates in enumerate((3, 5, 40, 1, 7))]

    async def together() -> list[Any]:
        return await asyncio.gather(*(score(version, rows) for rows in requests))

    for rows, found in zip(requests, asyncio.run(together()), strict=True):
        wanted = expected(source.parent / "model.onnx", rows)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_ids_keep_every_bit(tmp_path: Path, gate: Gate) -> None:
    """Indices up to 2**31, of which float32 could tell only one in 128 from its neighbours."""
    buckets = 2**31 - 3
    hashed = {"kind": "categorical", "hash_buckets": buckets}
    node, make = helper.make_node, helper.make_tensor_value_info
    graph = helper.make_graph(
        [node("Mod", ["ids", "modulus"], ["rest"]), node("Cast", ["rest"], ["rests"], to=1)],
        "rests",
        [make("ids", TensorProto.INT64, ["rows", 2])],
        [make("rests", TensorProto.FLOAT, ["rows", 2])],
        [numpy_helper.from_array(np.array(10007, np.int64), "modulus")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(tmp_path / "model.onnx"))
    spec = {
        "model": "foreign",
        "features": [
            {"name": "who", "entity": "user", **hashed},
            {"name": "what", "entity": "item", **hashed},
        ],
        "inputs": {"ids": ["user.who", "item.what"]},
        "tasks": [{"name": n, "kind": "regression", "column": i} for i, n in enumerate("ab")],
        "examples": [{"user.who": "anyone", "item.what": "anything"}],
    }
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    import_graph(
        tmp_path / "model.onnx", Specification(tmp_path / "spec.yaml"), tmp_path / "bundle"
    )
    version = admit(gate, tmp_path / "bundle")
    requests = [[{"user.who": u, "item.what": i} for i in range(20)] for u in range(5)]

    async def together() -> list[Any]:
        return await asyncio.gather(*(score(version, rows) for rows in requests))

    def rest(value: int) -> int:
        return (hash_value(value) % buckets + 2) % 10007

    for rows, found in zip(requests, asyncio.run(together()), strict=True):
        wanted = [[rest(row["user.who"]), rest(row["item.what"])] for row in rows]
        assert found.tolist() == wanted


def test_golden_rows_are_replayed(gate: Gate, source: Path) -> None:
    golden = store.load(source).golden()
    scores = golden.scores.copy()
    scores[1, 2] += 0.01
    values = {**vars(golden), "scores": scores}
    np.savez(source / manifests.GOLDEN_FILE, **values)
    reseal(source)
    with pytest.raises(Refused, match="scores of seconds are") as caught:
        admit(gate, source)
    assert caught.value.reason == "golden_mismatch"


def test_a_graph_with_other_names_than_promised_is_refused(gate: Gate, source: Path) -> None:
    stages = store.load(source).manifest.stages
    assert isinstance(stages, SingleStage)
    stage = stages.single.model_copy(update={"inputs": ("user_ids",)})
    reseal(source, stages={"single": stage.model_dump()})
    with pytest.raises(Refused, match=r"single\.onnx: has inputs .* the manifest promises"):
        admit(gate, source)


def test_as_many_scores_as_tasks(source: Path) -> None:
    tasks = [{"name": task["name"], "kind": task["kind"]} for task in SPEC["tasks"][:2]]
    with pytest.raises(ValueError, match=r"stages\.single: 3 outputs for 2 tasks"):
        reseal(source, tasks=tasks)
