"""Samples: requests as the published model wants them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bundle.manifest import (
    GOLDEN_FILE,
    VOCABULARIES_FILE,
    FileDigest,
    Manifest,
    Parity,
    Sample,
    Task,
)
from bundle.rows import RowLayout
from bundle.schema import (
    Bucketised,
    Categorical,
    DenseVector,
    Entity,
    Feature,
    FeatureSchema,
    IdList,
    Number,
)
from bundle.stages import Stage, Stages
from bundle.store import Bundle
from loadtest.samples import RequestSource, SampleUnusable, newest

ITEM = Categorical(name="item_id", entity="item", vocabulary_size=3)
CONTEXT: tuple[Feature, ...] = (
    Number(name="hour", entity="context", mean=12.0, std=5.0),
    Bucketised(name="battery", entity="context", boundaries=(20.0, 80.0)),
    Categorical(name="device", entity="context", vocabulary_size=3),
    IdList(name="query", entity="context", hash_buckets=100, max_length=3),
    DenseVector(name="place", entity="context", dimension=2),
)


def bundle(
    directory: Path,
    *features: Feature,
    items: list[Any] | None = None,
    entities: tuple[Entity, ...] = ("user", "item"),
) -> Bundle:
    """A bundle with a sample of three users and some items; there are no graphs in it."""
    ids = {"user": ["u1", "u2", "u3"], "item": items or [f"i{n}" for n in range(20)]}
    for entity in entities:
        column = f"{entity}_id"
        pq.write_table(pa.table({column: ids[entity]}), directory / f"{entity}.parquet")
    stages = {
        name: Stage(file=f"{name}.onnx", inputs=("ids",), output="out", output_width=2)
        for name in ("user", "item", "joint")
    }
    names = [f"{name}.onnx" for name in stages] + [VOCABULARIES_FILE, GOLDEN_FILE]
    names += [f"{entity}.parquet" for entity in entities]
    manifest = Manifest(
        model="shop",
        family="mmoe",
        created_at="",
        feature_set="shop",
        features=FeatureSchema(features=(ITEM, *features)),
        tasks=(Task(name="click", kind="binary"), Task(name="like", kind="binary")),
        stages=Stages(**stages),
        parity=Parity(max_abs_difference=0.0, rows=(1,), users=(1,)),
        samples={e: Sample(file=f"{e}.parquet", key=f"{e}_id") for e in entities},
        files={name: FileDigest(bytes=0, sha256="0" * 64) for name in names},
    )
    return Bundle(directory, manifest, {})


def test_a_request_holds_what_the_api_wants_and_no_more(tmp_path: Path) -> None:
    asked = RequestSource(bundle(tmp_path), 5, "columns").draw()

    sent = orjson.loads(asked.body)
    assert set(sent) == {"request_id", "model", "user", "candidates", "format"}
    assert sent["request_id"] == asked.request_id
    assert sent["model"] == asked.model == "shop"
    assert sent["user"]["id"] in {"u1", "u2", "u3"}
    assert sent["candidates"] == {"ids": asked.candidates}
    assert sent["format"] == asked.format == "columns"
    assert asked.tasks == ("click", "like")


def test_candidates_are_distinct_and_of_the_sample(tmp_path: Path) -> None:
    source = RequestSource(bundle(tmp_path), 10, "rows")

    drawn = [source.draw().candidates for _ in range(50)]
    assert all(len(set(ids)) == 10 for ids in drawn)
    assert {item for ids in drawn for item in ids} == {f"i{n}" for n in range(20)}
    assert len({tuple(ids) for ids in drawn}) == 50


def test_integer_ids_stay_integers_and_the_whole_sample_can_be_asked_for(tmp_path: Path) -> None:
    asked = RequestSource(bundle(tmp_path, items=[1, 2, 2, 3]), 3, "rows").draw()

    assert sorted(orjson.loads(asked.body)["candidates"]["ids"]) == [1, 2, 3]


def test_context_values_of_every_kind_are_accepted_by_the_schema(tmp_path: Path) -> None:
    made = bundle(tmp_path, *CONTEXT)
    source = RequestSource(made, 1, "rows")
    layout = RowLayout(made.manifest.features, "context")

    contexts = [orjson.loads(source.draw().body)["context"] for _ in range(30)]
    for context in contexts:
        assert set(context) == set(layout.slots)
        assert all(math.isfinite(number) for number in context["place"])
    columns = {name: [context[name] for context in contexts] for name in layout.slots}
    assert not layout.missing(layout.pack(columns, len(contexts))).any()
    batteries = columns["battery"]
    assert min(batteries) < 20 < max(batteries)


def test_the_same_seed_draws_the_same_requests(tmp_path: Path) -> None:
    made = bundle(tmp_path, *CONTEXT)

    def bodies(seed: int) -> list[bytes]:
        source = RequestSource(made, 4, "rows", seed)
        return [source.draw().body for _ in range(3)]

    assert bodies(1) == bodies(1)
    assert set(bodies(1)).isdisjoint(bodies(2))


def test_more_candidates_than_items_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SampleUnusable, match=r"200 distinct candidates .* 20 items"):
        RequestSource(bundle(tmp_path), 200, "rows")


@pytest.mark.parametrize("entities", [("user",), ("item",)])
def test_a_bundle_without_a_sample_is_refused(tmp_path: Path, entities: tuple[Entity, ...]) -> None:
    with pytest.raises(SampleUnusable, match=r"no sample of (user|item) ids"):
        RequestSource(bundle(tmp_path, entities=entities), 2, "rows")


def test_which_model_must_be_clear(tmp_path: Path) -> None:
    with pytest.raises(SampleUnusable, match="no published model; published: none"):
        newest(tmp_path / "nowhere", None)
    (tmp_path / "shop" / "1").mkdir(parents=True)
    with pytest.raises(SampleUnusable, match="no model 'news'; published: shop"):
        newest(tmp_path, "news")
    with pytest.raises(SampleUnusable, match=r"shop: manifest\.json"):
        newest(tmp_path, None)
    (tmp_path / "news" / "1").mkdir(parents=True)
    with pytest.raises(SampleUnusable, match="--model: news, shop"):
        newest(tmp_path, None)
