"""Configurations: the examples are valid, and what is wrong is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from model_export import config, yaml_files
from model_export.errors import ConfigInvalid
from tests.unit.model_export import experiments

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_load_and_survive_a_round_trip(path: Path) -> None:
    loaded = config.load(path)
    assert config.parse(yaml.safe_load(config.dump(loaded)), "dumped") == loaded


def test_the_movielens_examples_differ_in_architecture_alone() -> None:
    loaded = [config.load(path) for path in EXAMPLES if path.name.startswith("movielens")]
    assert len(loaded) == 4
    kept = {"data", "features", "tasks", "training", "model", "seed", "fusion"}
    assert len({one.model_dump_json(include=kept) for one in loaded}) == 1


def _change(content: Any, where: tuple[str | int, ...], value: object) -> None:
    *path, last = where
    for part in path:
        content = content[part]
    content[last] = value


@pytest.mark.parametrize(
    ("where", "value", "named"),
    [
        (("training", "epochs"), 0, "training.epochs: "),
        (("seed",), -1, "seed: "),
        (("seed",), 2**70, "seed: "),
        (("training", "epoch"), 3, "training.epoch: "),
        (("training", "learning_rate"), float("inf"), "training.learning_rate: "),
        (("architecture", "family"), "transformer", "architecture: .*'transformer'"),
        (("architecture", "experts"), "many", r"architecture\.mmoe\.experts: "),
        (("architecture", "expert_layers"), [], r"architecture\.mmoe\.expert_layers: "),
        (("features", 0, "quantiles"), 1, r"features\.0 \(age\)\.bucketised\.quantiles: "),
        (("features", 0, "boundaries"), [1], r"features\.0 \(age\)\.bucketised: .*exactly one of"),
        (("features", 1, "hash_buckets"), 9, r"features\.1 \(segment\)\.categorical: .*exactly"),
        (("features", 2, "min_count"), 2, r"features\.2 \(history\)\.id_list: .*min_count"),
        (("features", 3, "kind"), "text", r"features\.3 \(hour\): "),
        (("features", 4, "entity"), "film", r"features\.4 \(item_id\)\.categorical\.entity: "),
        (("features", 5, "name"), "item_id", "features: declared twice: item.item_id"),
        (("tasks", 1, "name"), "click", "tasks: declared twice: click"),
        (("tasks", 2, "at_least"), 3, r"tasks\.2 \(watch_seconds\): .*at_least"),
        (("tasks",), [], "tasks: "),
        (("data", "loader"), "parquet", "data: "),
        (("data", "split"), {"test": 0.6, "validation": 0.5}, r"data\.synthetic\.split: "),
        (("name",), "../up", "name: "),
        (("colour",), "red", "colour: "),
    ],
)
def test_what_is_wrong_is_named(where: tuple[str | int, ...], value: object, named: str) -> None:
    content = experiments.tiny()
    _change(content, where, value)
    with pytest.raises(ConfigInvalid, match=rf"^tiny\.yaml: {named}"):
        config.parse(content, "tiny.yaml")


@pytest.mark.parametrize(
    ("entities", "named"),
    [
        ({"user", "context"}, "features: at least one item feature"),
        ({"item"}, "features: at least one user or context feature"),
    ],
)
def test_both_sides_need_a_feature(entities: set[str], named: str) -> None:
    content = experiments.tiny()
    features = [feature for feature in content["features"] if feature["entity"] in entities]
    with pytest.raises(ConfigInvalid, match=named):
        config.parse({**content, "features": features}, "tiny.yaml")


def test_every_problem_is_told_at_once() -> None:
    content = experiments.tiny(seed="x")
    content["training"]["epochs"] = 0
    with pytest.raises(ConfigInvalid, match=r"seed: .*; training\.epochs: "):
        config.parse(content, "tiny.yaml")


@pytest.mark.parametrize("text", ["- a list", "a: b: c", "", "\x00"])
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ConfigInvalid, match=r"broken\.yaml"):
        config.load(path)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"absent\.yaml: No such file"):
        config.load(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("written", "named"),
    [
        ("name: a\nmodel: b\nname: c\n", r"'name' is given twice\n.*line 3"),
        ("data: {loader: table, loader: synthetic}\n", "'loader' is given twice"),
        ("a: " + "[" * 3000 + "]" * 3000, "nested too deeply"),
        ("name: \xff\x00", "not YAML"),
    ],
)
def test_a_file_that_is_not_one_mapping_is_refused(
    written: str, named: str, tmp_path: Path
) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(written)
    with pytest.raises(ConfigInvalid, match=f"odd.yaml: .*{named}"):
        config.load(path)


def test_a_mapping_may_be_merged_into_another(tmp_path: Path) -> None:
    path = tmp_path / "merged.yaml"
    path.write_text("a: &a {x: 1, y: 2}\nb: &b {<<: *a, x: 3}\nc: {<<: *b, y: 4}\n")
    assert yaml_files.read(path)["c"] == {"x": 3, "y": 4}
