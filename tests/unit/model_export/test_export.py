"""Export: every family as three stages, equal to torch; a bundle that loads; parity that fails."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from bundle import store
from bundle.encoding import Encoder, Side
from bundle.errors import FileMissing
from bundle.schema import Categorical, FeatureSchema, Number
from bundle.stages import Stage, Stages
from model_export import graphs, parity, pipeline
from model_export.config import Config
from model_export.errors import ParityFailed
from model_export.export import contents_of, write_bundle
from model_export.training import run_directory
from model_export.training.run_directory import Examples
from tests.unit.model_export import networks

Exported = tuple[Path, Stages]
ENCODER = Encoder(networks.SCHEMA, networks.VOCABULARIES)
EXAMPLES = Examples(*networks.users(5), networks.items(64))


@pytest.fixture(scope="module")
def export_family(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    """Exports a family's network, once: the directory and the stages of its graphs."""

    @cache
    def exported(family: str) -> Exported:
        directory = tmp_path_factory.mktemp(family)
        stages = graphs.export_stages(networks.build(family), networks.SCHEMA, directory)
        assert isinstance(stages, Stages)
        return directory, stages

    return exported


@pytest.fixture
def mmoe(export_family: Callable[[str], Exported]) -> Exported:
    return export_family("mmoe")


@pytest.mark.parametrize("family", ["shared_bottom", "mmoe", "ple_three_levels"])
def test_the_stages_give_torch_s_scores(
    family: str, export_family: Callable[[str], Exported]
) -> None:
    directory, stages = export_family(family)
    opened = parity.Graphs.open(directory, stages)
    found = parity.check(networks.build(family), opened, ENCODER, EXAMPLES)
    assert found.max_abs_difference <= 1e-5
    assert (found.rows, found.users) == ((1, 2, 257), (1, 2, 5))
    assert stages.user.inputs == stages.item.inputs == ("ids", "numbers")
    assert stages.user.output_width == stages.item.output_width
    files = {stage.file for _, stage in stages}
    assert {path.name for path in directory.iterdir()} == files  # no external weights beside
    for name, stage in stages:
        session = onnxruntime.InferenceSession(str(directory / stage.file))
        assert tuple(value.name for value in session.get_inputs()) == stage.inputs, name
        (output,) = session.get_outputs()
        assert output.name == stage.output
        assert output.shape[1] == stage.output_width


def test_a_graph_holds_only_its_side_of_the_embeddings(mmoe: Exported) -> None:
    directory, stages = mmoe
    model = networks.build_split("mmoe")
    total = len(model.embeddings.weight)
    sides: tuple[tuple[Stage, Side], ...] = ((stages.user, "user"), (stages.item, "item"))
    for stage, side in sides:
        start, stop = model.embeddings.ranges[side]
        tensors = onnx.load(str(directory / stage.file)).graph.initializer
        rows = {tensor.dims[0] for tensor in tensors if list(tensor.dims[1:]) == [4]}
        assert stop - start in rows
        assert total not in rows


def test_an_input_without_columns_is_left_out(tmp_path: Path) -> None:
    schema = FeatureSchema(
        features=(
            Categorical(name="city", entity="user", hash_buckets=5),
            Number(name="price", entity="item"),
        )
    )
    model = networks.build("mmoe", schema)
    stages = graphs.export_stages(model, schema, tmp_path)
    assert isinstance(stages, Stages)
    assert (stages.user.inputs, stages.item.inputs) == (("ids",), ("numbers",))
    encoder = Encoder(schema, {})
    examples = Examples(
        users=encoder.layouts["user"].pack({"city": ["a", "b", "c"]}, 3),
        contexts=encoder.layouts["context"].empty(3),
        items=encoder.layouts["item"].pack({"price": [1.0, 2.0, None]}, 3),
    )
    parity.check(model, parity.Graphs.open(tmp_path, stages), encoder, examples)


def test_perturbed_weights_fail_parity(mmoe: Exported) -> None:
    opened = parity.Graphs.open(*mmoe)
    model = networks.build("mmoe")
    parity.check(model, opened, ENCODER, EXAMPLES)
    with torch.no_grad():
        model.get_parameter("towers.linears.0.weight").add_(1e-3)
    with pytest.raises(ParityFailed, match=r"scores differ by .* at 1 rows of 1 users"):
        parity.check(model, opened, ENCODER, EXAMPLES)


def test_scores_that_are_no_number_fail_parity(mmoe: Exported) -> None:
    model = networks.build_split("mmoe")
    with torch.no_grad():
        model.first.item.bias.fill_(float("nan"))
    with pytest.raises(ParityFailed, match="nan"):
        parity.check(model, parity.Graphs.open(*mmoe), ENCODER, EXAMPLES)


def test_an_exported_run_publishes_loads_and_replays(
    exported_run: Path, tiny_config: Config, tmp_path: Path
) -> None:
    published = pipeline.publish(exported_run, tmp_path / "models")
    assert published == tmp_path / "models" / "tiny" / "1"

    bundle = store.load(published)
    manifest = bundle.manifest
    assert (manifest.version, manifest.family, manifest.feature_set) == (1, "mmoe", "tiny")
    assert manifest.task_names == ("click", "like", "watch_seconds")
    summary = run_directory.read_summary(exported_run)
    assert manifest.training["held_out"] == summary.test
    assert manifest.training["sizes"] == summary.sizes
    assert manifest.training["config"]["seed"] == tiny_config.seed
    assert set(manifest.samples) == {"user", "item"}
    assert manifest.samples["item"].display == ("title",)

    golden, encoder = bundle.golden(), bundle.encoder()
    assert isinstance(manifest.stages, Stages)
    scores = parity.Graphs.open(published, manifest.stages).scores(
        encoder.user(golden.users, golden.contexts), encoder.item(golden.items), golden.user_row
    )
    np.testing.assert_allclose(scores, golden.scores, rtol=1e-5, atol=1e-6)
    assert len(set(golden.user_row.tolist())) > 1

    # The formula is written once; a second version leaves it as the product team has it.
    formula = published.parent / "fusions" / "default.yaml"
    assert "formula: click * like" in formula.read_text()
    formula.write_text("formula: like")
    assert pipeline.publish(exported_run, tmp_path / "models").name == "2"
    assert formula.read_text() == "formula: like"
    assert list(formula.parent.iterdir()) == [formula]


def test_an_export_that_fails_leaves_what_was_there(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_model: object, _schema: object, directory: Path) -> None:
        (directory / "user.onnx").write_bytes(b"half")
        raise ParityFailed("scores differ")

    monkeypatch.setattr(graphs, "export_stages", fail)
    contents = contents_of(run_directory.read(tiny_run))
    with pytest.raises(ParityFailed):
        write_bundle(contents, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "manifest.json").write_text("the one before")
    with pytest.raises(ParityFailed):
        write_bundle(contents, tmp_path / "bundle")
    assert [file.name for file in tmp_path.rglob("*")] == ["bundle", "manifest.json"]


def test_a_run_that_was_not_exported_cannot_be_published(tiny_run: Path, tmp_path: Path) -> None:
    with pytest.raises(FileMissing):
        pipeline.publish(tiny_run, tmp_path / "models")


def test_closed_connections_of_snr_are_not_in_the_graph(tmp_path: Path) -> None:
    model = networks.build("snr_trans")
    closed = 0
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("log_alpha"):
                parameter[:, 1:] = -9  # only the first sub-network is listened to
                closed += parameter[:, 1:].numel()
    stages = graphs.export_stages(model, networks.SCHEMA, tmp_path)
    parity.check(model, parity.Graphs.open(tmp_path, stages), ENCODER, EXAMPLES)
    products = [
        node
        for node in onnx.load(str(tmp_path / "joint.onnx")).graph.node
        if node.op_type == "Gemm"
    ]
    # Of 3 sub-networks a level: routed to the 1 that is listened to above, its 2 layers, then
    # routed to 3 towers of 2 layers each.
    assert closed == 2 * 6
    assert len(products) == 1 + 2 + 3 + 3 * 2
