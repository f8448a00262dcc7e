"""A version that reads rows of another layout is let in once the store has them, and warm."""

from __future__ import annotations

import os
from pathlib import Path

from tests.conftest import ROOT, Serve
from tests.e2e.asking import CONTEXT, USER
from tests.e2e.test_redis import features_load
from tests.published import MODEL, ModelsDirectory
from tests.servers import Redis, eventually

ITEMS = [f"i{number}" for number in range(40)]
REQUEST = {"user": {"id": USER}, "context": CONTEXT, "candidates": {"ids": ITEMS}}


def publish_with_longer_lists(models: ModelsDirectory, directory: Path) -> int:
    """Train and publish a version that reads one more category of each item."""
    from model_export import config, pipeline

    text = (ROOT / "examples" / "synthetic.yaml").read_text()
    longer = text.replace("hash_buckets: 64, max_length: 3", "hash_buckets: 64, max_length: 4")
    assert longer != text
    file = directory / "longer.yaml"
    file.write_text(longer.replace("epochs: 6", "epochs: 1"))
    version = models.next_version()
    pipeline.run(config.load(file), directory / "runs", models.path)
    return version


def test_rows_of_another_layout(
    models_dir: ModelsDirectory, serve: Serve, redis_server: Redis, tmp_path: Path
) -> None:
    def load(entity: str) -> None:
        done = features_load(models_dir.path, redis_server.url, entity)
        assert done.returncode == 0, done.stderr

    load("user")
    load("item")
    service = serve(models_dir.path, redis_url=redis_server.url)
    service.allow_in_log("redis does not report changes")  # it ends first
    for _ in range(3):
        assert service.rank(**REQUEST)["degraded"] is None
    version = publish_with_longer_lists(models_dir, tmp_path)
    says = (
        "features_unknown: of the 40 items that are asked for most the store has 0 rows as this "
        "version reads them; load them with `multirank features load`"
    )
    service.expect_in_log(f"version {version} refused: {says}")
    eventually(lambda: service.version(MODEL, version)["state"] == "refused")
    assert service.version(MODEL, version)["reason"] == says
    counted = {"model": MODEL, "reason": "features_unknown"}
    assert service.metric("multirank_versions_refused_total", **counted) == 1
    assert service.rank(**REQUEST)["model"]["version"] == 1

    load("item")
    os.utime(models_dir.model / str(version) / "manifest.json")  # or half a minute later
    eventually(lambda: service.version(MODEL, version)["labels"] == ["stable"])
    computed = {"model": MODEL, "outcome": "miss"}
    before = service.metric("multirank_item_cache_rows_total", **computed)
    answer = service.rank(**REQUEST)
    assert answer["model"]["version"] == version
    assert answer["degraded"] is None
    assert service.metric("multirank_item_cache_rows_total", **computed) == before
