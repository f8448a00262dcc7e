"""A model whose embedding table is a file: workers map it, and answer as they should."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import psutil
import pytest

from model_export import graphs, pipeline
from model_export.tables import TABLE_FILE
from tests.conftest import Serve
from tests.e2e.asking import CONTEXT, IDS, REQUEST, USER, tasks_of
from tests.published import MODEL, ModelsDirectory, reseal
from tests.servers import eventually


@pytest.fixture
def mapped(
    trained_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ModelsDirectory:
    """Version 1 of `synthetic`, exported once more, its table in a file."""
    monkeypatch.setattr(graphs, "LARGE_BYTES", 0)
    run = shutil.copytree(trained_models.parent / "runs-1" / MODEL, tmp_path / "run")
    pipeline.export(run)
    pipeline.publish(run, tmp_path / "models")
    return ModelsDirectory(tmp_path / "models", trained_models)


def test_workers_share_the_table_and_refuse_a_damaged_one(
    mapped: ModelsDirectory, serve: Serve
) -> None:
    service = serve(mapped.path, workers=2)
    expected = mapped.expected(1).scores(USER, IDS, CONTEXT)
    answer = service.rank(**REQUEST)
    rows = [IDS.index(item["id"]) for item in answer["items"]]
    np.testing.assert_allclose(tasks_of(answer), expected[rows], rtol=1e-4, atol=1e-5)

    table = mapped.model / "1" / TABLE_FILE
    for worker in psutil.Process(service.process.pid).children():
        assert str(table) in {each.path for each in worker.memory_maps()}

    published = next_version(mapped)
    content = bytearray((published / TABLE_FILE).read_bytes())
    content[len(content) // 2] ^= 1
    (published / TABLE_FILE).write_bytes(content)
    published.rename(mapped.model / "2")
    refused = eventually(
        lambda: v if (v := service.version(MODEL, 2)) and v["state"] == "refused" else None
    )
    assert refused is not None
    assert refused["reason"].startswith(f"digest_mismatch: {TABLE_FILE}: ")
    assert service.rank(**REQUEST)["model"]["version"] == 1
    service.expect_in_log(f"version 2 refused: digest_mismatch: {TABLE_FILE}")


def next_version(mapped: ModelsDirectory) -> Path:
    """Version 2, out of the service's sight."""
    elsewhere = mapped.path.parent / "elsewhere"
    shutil.copytree(mapped.model / "1", elsewhere)
    reseal(elsewhere, version=2)
    return elsewhere
