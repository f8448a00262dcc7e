"""A large embedding table in a file of its own: same scores, one copy, verified like every file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from bundle import store
from bundle.encoding import Encoder, Side
from bundle.errors import BundleError, DigestMismatch, FileMissing, FileUnsafe
from bundle.schema import Categorical, FeatureSchema, Number
from model_export import graphs, parity
from model_export.export import contents_of, write_bundle
from model_export.tables import LARGE_BYTES, TABLE_FILE, TableFile, tables_of
from model_export.training import run_directory
from model_export.training.run_directory import Examples
from tests.unit.model_export import networks

ENCODER = Encoder(networks.SCHEMA, networks.VOCABULARIES)
EXAMPLES = Examples(*networks.users(5), networks.items(64))


@pytest.fixture
def every_table_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "LARGE_BYTES", 0)


@pytest.mark.usefixtures("every_table_is_large")
@pytest.mark.parametrize("family", ["shared_bottom", "mmoe"])
def test_the_scores_are_those_of_torch(family: str, tmp_path: Path) -> None:
    model = networks.build(family)
    stages = graphs.export_stages(model, networks.SCHEMA, tmp_path)
    found = parity.check(model, parity.Graphs.open(tmp_path, stages), ENCODER, EXAMPLES)
    assert found.max_abs_difference <= 1e-5

    (table,) = tables_of(model)
    weight = table.weight.detach().numpy()
    np.testing.assert_array_equal(np.fromfile(tmp_path / TABLE_FILE, "<f4"), weight.ravel())
    sides: tuple[Side, ...] = ("user", "item")
    for side in sides:
        start, stop = table.ranges[side]
        (external,) = external_tensors(tmp_path / f"{side}.onnx")
        info = ExternalDataInfo(external)
        assert info.location == TABLE_FILE
        assert info.offset == start * weight[0].nbytes
        assert info.length == weight[start:stop].nbytes
        assert list(external.dims) == [stop - start, weight.shape[1]]
    assert external_tensors(tmp_path / "joint.onnx") == []


def external_tensors(graph: Path) -> list[onnx.TensorProto]:
    model = onnx.load(str(graph), load_external_data=False)
    return [tensor for tensor in model.graph.initializer if uses_external_data(tensor)]


def test_a_small_table_stays_in_the_graphs(exported_run: Path) -> None:
    (table,) = tables_of(run_directory.read(exported_run).model)
    assert table.weight.nbytes < LARGE_BYTES
    assert (exported_run / "bundle" / "user.onnx").is_file()
    assert not (exported_run / "bundle" / TABLE_FILE).exists()


@pytest.mark.usefixtures("every_table_is_large")
def test_a_side_without_ids_reads_no_table(tmp_path: Path) -> None:
    schema = FeatureSchema(
        features=(
            Categorical(name="city", entity="user", hash_buckets=5),
            Number(name="price", entity="item"),
        )
    )
    graphs.export_stages(networks.build("mmoe", schema), schema, tmp_path)
    assert len(external_tensors(tmp_path / "user.onnx")) == 1
    assert external_tensors(tmp_path / "item.onnx") == []


def test_a_graph_that_has_no_such_table_is_not_written_silently(
    exported_run: Path, tmp_path: Path
) -> None:
    import onnx_ir as ir

    other = TableFile(tables_of(networks.build("mmoe"))[0], tmp_path)
    with pytest.raises(LookupError, match="no initializer is the item side's embedding table"):
        other.move_out_of(ir.load(exported_run / "bundle" / "item.onnx").graph, "item")


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def link_to_itself(path: Path) -> None:
    path.rename(path.parent.parent / path.name)
    path.symlink_to(path.parent.parent / path.name)


@pytest.fixture(scope="module")
def published(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published version with a table, not to be changed."""
    directory = tmp_path_factory.mktemp("tables")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs, "LARGE_BYTES", 0)
        manifest = write_bundle(contents_of(run_directory.read(tiny_run)), directory / "bundle")
    assert TABLE_FILE in manifest.files
    version = store.publish(directory / "bundle", directory / "models")
    shutil.rmtree(directory / "bundle")
    return version


def test_a_published_table_gives_the_golden_scores(published: Path) -> None:
    bundle = store.load(published)
    golden, encoder = bundle.golden(), bundle.encoder()
    scores = parity.Graphs.open(published, bundle.manifest.stages).scores(
        encoder.user(golden.users, golden.contexts), encoder.item(golden.items), golden.user_row
    )
    np.testing.assert_allclose(scores, golden.scores, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (flip_a_bit, DigestMismatch),
        (lambda path: path.write_bytes(path.read_bytes()[:-64]), DigestMismatch),
        (Path.unlink, FileMissing),
        (link_to_itself, FileUnsafe),
    ],
)
def test_the_table_is_verified(
    published: Path, tmp_path: Path, damage: Callable[[Path], object], error: type[BundleError]
) -> None:
    copy = tmp_path / "version"
    shutil.copytree(published, copy)
    damage(copy / TABLE_FILE)
    with pytest.raises(error, match=TABLE_FILE):
        store.load(copy)
