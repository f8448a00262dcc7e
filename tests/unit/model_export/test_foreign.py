"""Graphs from elsewhere give in a bundle what they gave."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from onnx import TensorProto, helper

from bundle import store
from bundle.stages import SingleStage
from model_export.errors import ParityFailed, SpecInvalid
from model_export.foreign import reference
from model_export.foreign.importing import import_graph
from model_export.foreign.specification import Specification
from tests.conftest import ROOT
from tests.foreign_graphs import SPEC, TASKS, expected, imported, write_graph, write_spec

EXAMPLES: list[dict[str, Any]] = SPEC["examples"]


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    return write_graph(tmp_path / "model.onnx")


def scores(bundle: store.Bundle, rows: list[dict[str, Any]]) -> Any:
    """What the bundle's stage gives for raw rows, each with a user of its own."""
    encoder, stages = bundle.encoder(), bundle.manifest.stages
    assert isinstance(stages, SingleStage)

    def pack(entity: Any) -> Any:
        names = encoder.layouts[entity].slots
        columns = {name: [row[f"{entity}.{name}"] for row in rows] for name in names}
        return encoder.layouts[entity].pack(columns, len(rows))

    users, items = encoder.user(pack("user"), pack("context")), encoder.item(pack("item"))
    feeds = {
        "user_ids": users.ids,
        "user_numbers": users.numbers,
        "item_ids": items.ids,
        "item_numbers": items.numbers,
        "user_row": np.arange(len(rows)),
    }
    session = ort.InferenceSession(str(bundle.path / stages.single.file))
    (found,) = session.run(None, {name: feeds[name] for name in stages.single.inputs})
    return found


def test_the_bundle_gives_what_the_graph_gave(graph: Path) -> None:
    bundle = imported(graph)
    manifest = bundle.manifest
    assert manifest.task_names == TASKS
    assert (manifest.model, manifest.family) == ("foreign", "imported")
    assert manifest.parity.reference == "imported_graph"
    assert manifest.parity.max_abs_difference <= 1e-5
    np.testing.assert_allclose(scores(bundle, EXAMPLES), expected(graph, EXAMPLES), atol=1e-5)
    golden = bundle.golden()
    np.testing.assert_allclose(golden.scores, expected(graph, EXAMPLES), atol=1e-5)
    assert set(manifest.samples) == {"user", "item"}


def test_weights_beside_the_graph_are_carried_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = write_graph(tmp_path / "model.onnx", external=True)
    assert (tmp_path / "weights.bin").is_file()
    monkeypatch.setattr("model_export.foreign.wrap._EXTERNAL_BYTES", 1)
    bundle = imported(graph)
    assert "single.onnx.data" in bundle.manifest.files
    wanted = expected(graph, EXAMPLES)
    (tmp_path / "weights.bin").unlink()
    np.testing.assert_allclose(scores(bundle, EXAMPLES), wanted, atol=1e-5)
    (tmp_path / "bundle" / "single.onnx.data").unlink()
    with pytest.raises(SpecInvalid, match="weights"):
        imported(graph)


def test_vocabularies_and_examples_may_lie_in_files(graph: Path) -> None:
    (graph.parent / "cities.txt").write_text("oslo\nrome\nlima\n")
    features = copy.deepcopy(SPEC["features"])
    features[1]["vocabulary"] = "cities.txt"
    pq.write_table(pa.Table.from_pylist(EXAMPLES), graph.parent / "rows.parquet")
    bundle = imported(graph, features=features, examples="rows.parquet")
    np.testing.assert_allclose(scores(bundle, EXAMPLES), expected(graph, EXAMPLES), atol=1e-5)


def test_given_scores_are_the_golden_ones_if_the_graph_gives_them(graph: Path) -> None:
    rows = [
        row | dict(zip(TASKS, known, strict=True))
        for row, known in zip(EXAMPLES, expected(graph, EXAMPLES).tolist(), strict=True)
    ]
    assert imported(graph, examples=rows).manifest.parity.reference == "given"
    rows[2]["like"] += 0.01
    with pytest.raises(ParityFailed, match=r"examples\[2\]: like is .* the graph gives"):
        imported(graph, examples=rows)
    del rows[2]["like"], rows[1]["like"], rows[0]["like"]
    with pytest.raises(SpecInvalid, match="scores for click, seconds but not for like"):
        imported(graph, examples=rows)


def test_samples_become_those_of_the_bundle(graph: Path) -> None:
    films = pa.table({"id": [1, 2], "film": [1, 2], "price": [0.5, 1.0], "title": ["a", "b"]})
    pq.write_table(films, graph.parent / "films.parquet")
    sample = {"file": "films.parquet", "key": "id", "display": ["title"]}
    bundle = imported(graph, samples={"item": sample})
    assert bundle.manifest.samples["item"].display == ("title",)
    assert pq.read_table(bundle.path / "sample_item.parquet").num_rows == 2
    assert pq.read_table(bundle.path / "sample_user.parquet").num_rows == 0
    with pytest.raises(SpecInvalid, match=r"samples.item: films.parquet: no column ident"):
        imported(graph, samples={"item": sample | {"key": "ident"}})


def test_a_wrapper_that_gives_other_scores_is_refused(
    graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "_reindexed", lambda ids, indices: ids * 0)
    with pytest.raises(ParityFailed, match=r"scores differ by .* from the graph's own"):
        imported(graph)
    assert not (graph.parent / "bundle").exists()


def test_the_command_publishes_without_torch(graph: Path, tmp_path: Path) -> None:
    spec = write_spec(tmp_path / "spec.yaml")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from multirank.main import app; app(sys.argv[1:], standalone_mode=False)"
    )
    command = [sys.executable, "-c", code, "import-onnx", str(graph), "--spec", str(spec)]
    done = subprocess.run(
        [*command, "--models", str(tmp_path / "models")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "scores of the graph itself, for the example rows" in done.stdout
    assert store.load(tmp_path / "models" / "foreign" / "1").manifest.version == 1
    formula = (tmp_path / "models" / "foreign" / "fusions" / "default.yaml").read_text()
    assert "click * like" in formula


def test_the_readme_s_specification_fits_such_a_graph(tmp_path: Path) -> None:
    node, make = helper.make_node, helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            node("Cast", ["ids"], ["float_ids"], to=TensorProto.FLOAT),
            node("Concat", ["dense", "float_ids"], ["x"], axis=1),
            node("ReduceMean", ["x"], ["logits"], axes=[1], keepdims=1),
        ],
        "clicks",
        [
            make("dense", TensorProto.FLOAT, ["batch", 1]),
            make("ids", TensorProto.INT64, ["batch", 2]),
        ],
        [make("logits", TensorProto.FLOAT, ["batch", 1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(tmp_path / "model.onnx"))
    films = {"film_id": [1], "film": [1], "title": ["one"]}
    pq.write_table(pa.table(films), tmp_path / "films.parquet")
    readme = (ROOT / "README.md").read_text()
    (text,) = re.findall(r"^```yaml\n(model: clicks\n.*?)^```$", readme, re.DOTALL | re.MULTILINE)
    spec = tmp_path / "clicks.yaml"
    spec.write_text(text)
    import_graph(tmp_path / "model.onnx", Specification(spec), tmp_path / "bundle")
    assert store.load(tmp_path / "bundle").golden().scores[0, 0] == pytest.approx(
        1 / (1 + np.exp(-((41 - 35) / 12 + 2 + 7) / 3))
    )

    (said,) = re.findall(r"^error: clicks.yaml: (.*)$", readme, re.MULTILINE)
    spec.write_text(text.replace("dense:", "dens:"))
    with pytest.raises(SpecInvalid, match=re.escape(said)):
        import_graph(tmp_path / "model.onnx", Specification(spec), tmp_path / "bundle")
