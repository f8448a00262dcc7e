"""A graph from elsewhere, served: as three stages are, formulas, explanations and all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from multirank.main import app
from tests.conftest import Serve
from tests.foreign_graphs import TASKS, expected, write_graph, write_spec

USERS = [
    {"id": "ann", "age": 40, "city": "rome", "history": [2, 5]},
    {"id": "bob", "age": 20, "city": "elsewhere", "history": []},
]
FILMS = [{"id": f"film-{film}", "film": film, "price": film / 2} for film in range(1, 6)]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    graph = write_graph(tmp_path / "model.onnx")
    pq.write_table(pa.Table.from_pylist(USERS), tmp_path / "users.parquet")
    pq.write_table(pa.Table.from_pylist(FILMS), tmp_path / "films.parquet")
    samples = {
        "user": {"file": "users.parquet", "key": "id"},
        "item": {"file": "films.parquet", "key": "id"},
    }
    spec = write_spec(tmp_path / "spec.yaml", samples=samples)
    command = ["import-onnx", str(graph), "--spec", str(spec), "--models", str(tmp_path / "models")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    return tmp_path / "models"


def wanted(models: Path, user: dict[str, Any], hour: float, films: list[dict[str, Any]]) -> Any:
    known = {f"user.{name}": value for name, value in user.items()} | {"context.hour": hour}
    rows = [known | {f"item.{n}": value for n, value in film.items()} for film in films]
    return expected(models.parent / "model.onnx", rows)


def test_a_graph_from_elsewhere_ranks(models: Path, serve: Serve) -> None:
    service = serve(models, row_budget=3)  # a request goes over two runs
    ids = [film["id"] for film in FILMS]
    for user in USERS:
        asked = {
            "user": {"id": user["id"]},
            "context": {"hour": 2},
            "candidates": {"ids": ids},
            "explain": True,
        }
        answer = service.ask("/rank", asked)
        assert answer["degraded"] is None
        scores = wanted(models, user, 2, FILMS)
        by_id = {item["id"]: item for item in answer["items"]}
        found = [[by_id[each]["tasks"][task] for task in TASKS] for each in ids]
        np.testing.assert_allclose(found, scores, rtol=1e-4, atol=1e-5)
        fused = scores[:, 0] * scores[:, 1]
        assert [item["id"] for item in answer["items"]] == [ids[i] for i in np.argsort(-fused)]
        for item in answer["items"]:
            why = item["explain"]
            total = sum(why["contributions"].values())
            assert why["baseline"] + total == pytest.approx(item["score"], abs=1e-6)

    film = {"film": 77, "price": 3.5}
    answer = service.ask(
        "/score",
        {
            "user": {"features": {"age": 33, "city": "lima", "history": [1]}},
            "context": {"hour": 7},
            "candidates": [{"id": "new", "features": film}],
        },
    )
    user = {"age": 33, "city": "lima", "history": [1]}
    (scores,) = wanted(models, user, 7, [film])
    found = [answer["items"][0]["tasks"][task] for task in TASKS]
    np.testing.assert_allclose(found, scores, rtol=1e-4, atol=1e-5)


def test_what_does_not_fit_ends_the_command_with_a_message(models: Path) -> None:
    spec = write_spec(models.parent / "spec.yaml", inputs={"dens": ["user.age"]})
    graph = models.parent / "model.onnx"
    command = ["import-onnx", str(graph), "--spec", str(spec), "--models", str(models)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1
    assert "error: " in done.output
    assert "feeds none of them" in done.output
    assert sorted(path.name for path in (models / "foreign").iterdir()) == ["1", "fusions"]
