"""Sessions: a graph that is not what the manifest promises is refused before it is run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.external_data_helper import set_external_data

from bundle.errors import GraphInvalid, GraphMismatch
from bundle.stages import Stage
from service.scoring.runs import Array
from service.scoring.session import Session
from tests.unit.bundle.tiny import stages, write_bundle

STAGE = stages(2).user


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "tiny") / "user.onnx"


def test_a_graph_is_run_by_names(graph: Path) -> None:
    session = Session(graph, STAGE, threads=1)
    feeds: dict[str, Array] = {
        "numbers": np.zeros((2, 2), np.float32),
        "ids": np.array([[1, 0, 0], [0, 0, 0]], np.int32),
        "more": np.zeros(1),
    }
    output = session.run(feeds)
    assert output.shape == (2, 4)
    assert output.dtype == np.float32
    assert output[0].any()
    assert not output[1].any()


@pytest.mark.parametrize(
    "change",
    [{"inputs": ("ids",)}, {"inputs": ("ids", "numbers", "hour")}, {"output": "user_vector"}],
)
def test_other_names_than_promised_are_refused(graph: Path, change: dict[str, object]) -> None:
    promised: Stage = STAGE.model_copy(update=change)
    with pytest.raises(GraphMismatch, match=r"user\.onnx: has inputs .* the manifest promises"):
        Session(graph, promised, threads=1)


@pytest.mark.parametrize("content", [b"", b"not a graph"])
def test_what_is_no_graph_is_refused(graph: Path, content: bytes) -> None:
    graph.write_bytes(content)
    with pytest.raises(GraphInvalid, match=r"user\.onnx: onnxruntime refuses it"):
        Session(graph, STAGE, threads=1)


def test_weights_outside_of_the_bundle_are_refused(graph: Path) -> None:
    model = onnx.load(str(graph))
    (weight,) = model.graph.initializer
    (graph.parent.parent / "outside.bin").write_bytes(weight.raw_data)
    set_external_data(weight, "../outside.bin")
    weight.ClearField("raw_data")
    graph.write_bytes(model.SerializeToString())
    with pytest.raises(GraphInvalid, match=r"user\.onnx: onnxruntime refuses it"):
        Session(graph, STAGE, threads=1)
