"""Runs: what does not end by itself is ended, and nothing else is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from bundle.stages import Stage
from service.scoring.runs import Array, Ended, Runs
from service.scoring.session import Session
from tests.endless_graphs import endless_where
from tests.servers import eventually
from tests.unit.bundle.tiny import stages, write_bundle

STAGE: Stage = stages(2).user


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """A user stage that goes on for ever where `numbers` are not zero."""
    path = write_bundle(tmp_path / "tiny") / "user.onnx"
    model = onnx.load(str(path))
    endless_where(model, 0.0)
    onnx.save(model, str(path))
    return path


@pytest.fixture
def runs() -> Iterator[Runs]:
    watching = Runs(run_s=0.3)
    watching.start()
    yield watching
    watching.close()


def feeds(value: float) -> dict[str, Array]:
    return {"numbers": np.full((1, 2), value, np.float32), "ids": np.zeros((1, 3), np.int32)}


def test_an_endless_run_is_ended_and_those_after_it_are_not(graph: Path, runs: Runs) -> None:
    session = Session(graph, STAGE, 1, runs)
    for _ in range(2):
        with pytest.raises(Ended, match=r"a run took more than 0\.3 s of a processor"):
            session.run(feeds(9.0))
        assert session.run(feeds(0.0)).shape == (1, 4)


def test_a_run_beside_an_endless_one_is_left_alone(graph: Path, runs: Runs) -> None:
    session = Session(graph, STAGE, 1, runs)
    ended: list[BaseException] = []

    def run_for_ever() -> None:
        try:
            session.run(feeds(9.0))
        except Ended as error:
            ended.append(error)

    thread = threading.Thread(target=run_for_ever)
    thread.start()
    while thread.is_alive():
        session.run(feeds(0.0))
    assert len(ended) == 1


def test_closing_ends_what_is_under_way_and_what_comes(graph: Path) -> None:
    runs = Runs(run_s=1000.0)
    session = Session(graph, STAGE, 1, runs)
    failures: list[str] = []

    def run_for_ever() -> None:
        try:
            session.run(feeds(9.0))
        except Ended as error:
            failures.append(str(error))

    thread = threading.Thread(target=run_for_ever)
    thread.start()
    eventually(lambda: runs._under_way)
    runs.close()
    thread.join(30)
    assert failures == ["a run was ended: the service stops"]
    with pytest.raises(Ended, match="the service stops"):
        session.run(feeds(9.0))


def test_opening_that_takes_too_long_is_ended(graph: Path) -> None:
    """Constants that are hours of work to fold."""
    model = onnx.load(str(graph))
    size = numpy_helper.from_array(np.array([1500, 1500], np.int64), "size")
    first = helper.make_node("ConstantOfShape", ["size"], ["m0"])
    steps = [helper.make_node("MatMul", [f"m{n}", f"m{n}"], [f"m{n + 1}"]) for n in range(500)]
    model.graph.initializer.append(size)
    (output,) = model.graph.output
    last = model.graph.node[-1]
    last.output[0] = "unfolded"
    total = helper.make_node("ReduceSum", ["m500"], ["total"], keepdims=0)
    added = helper.make_node("Add", ["unfolded", "total"], [output.name])
    model.graph.node.extend([first, *steps, total, added])
    onnx.save(model, str(graph))
    runs = Runs(loading_s=0.3)
    runs.start()
    with pytest.raises(Ended, match=r"user\.onnx: opening it took more than 0\.3 s of a processor"):
        Session(graph, STAGE, 1, runs)
    runs.close()
