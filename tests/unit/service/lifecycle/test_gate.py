"""The gate: a version that is wrong in any way is refused, and says in which."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bundle.encoding import Encoder
from bundle.manifest import GOLDEN_FILE, VOCABULARIES_FILE
from bundle.schema import Number
from bundle.store import Bundle, digest, load, publish
from service.lifecycle.gate import FeatureLoader, Gate
from service.lifecycle.pace import Pace
from service.lifecycle.refusal import Refused
from service.lifecycle.version import LoadedVersion
from service.metrics import Metrics
from service.scoring.runs import UNWATCHED
from service.values import Candidates, UserSide
from tests.unit.bundle.tiny import (
    SCHEMA,
    describe,
    item_rows,
    reference_scores,
    stages,
    write_bundle,
)

Change = Callable[[Path], object]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    directory = tmp_path / "models"
    (directory / "tiny" / "fusions").mkdir(parents=True)
    return directory


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as threads:
        yield threads


Admit = Callable[..., LoadedVersion]


@pytest.fixture
def admit(models: Path, executor: ThreadPoolExecutor) -> Admit:
    def admit_version(
        version: int = 1,
        row_budget: int = 64,
        load_features: FeatureLoader = lambda bundle, encoder: None,
    ) -> LoadedVersion:
        gate = Gate(
            digest=digest,
            load_features=load_features,
            executor=executor,
            threads=1,
            row_budget=row_budget,
            queue_rows=1000,
            item_cache_bytes=1 << 16,
            metrics=Metrics(),
            runs=UNWATCHED,
        )
        return gate.admit(models, "tiny", version, None, lambda state: None, Pace(False))

    return admit_version


def gate_of(executor: ThreadPoolExecutor) -> Gate:
    return Gate(
        digest=digest,
        load_features=lambda bundle, encoder: None,
        executor=executor,
        threads=1,
        row_budget=64,
        queue_rows=1000,
        item_cache_bytes=1 << 16,
        metrics=Metrics(),
        runs=UNWATCHED,
    )


def refusal(admit: Admit, **arguments: Any) -> tuple[str, str]:
    with pytest.raises(Refused) as caught:
        admit(**arguments)
    return caught.value.reason, str(caught.value)


@pytest.mark.parametrize("row_budget", [1, 64, 1000])
def test_a_good_version_is_let_in_and_scores_as_it_should(
    models: Path, admit: Admit, tmp_path: Path, row_budget: int
) -> None:
    publish(write_bundle(tmp_path / "tiny"), models)
    version = admit(row_budget=row_budget)
    assert (version.manifest.model, version.manifest.version) == ("tiny", 1)
    assert version.leases == 0
    assert version.batcher.cost.predict(1) > 0.0  # learned while it was warmed up

    encoder = version.encoder
    user = encoder.layouts["user"].pack({"age": [50]}, 1)
    context = encoder.layouts["context"].empty(1)
    rows = item_rows(encoder, ["14", "unknown", "10"])
    content = encoder.layouts["item"].content_hash(rows)
    expected = reference_scores(
        encoder.user(user, context), encoder.item(rows), np.zeros(3, np.int64), tasks=2
    )
    for _ in range(2):  # the second time from the item cache
        users, items = UserSide(user, context), Candidates(rows, content)
        scoring = version.batcher.score(users, items, time.monotonic() + 60)
        np.testing.assert_allclose(asyncio.run(answered(scoring)).scores, expected, rtol=1e-5)


async def answered(scoring: Any) -> Any:
    return await scoring


def test_versions_with_the_same_vocabularies_share_an_encoder(
    models: Path, executor: ThreadPoolExecutor, tmp_path: Path
) -> None:
    source = write_bundle(tmp_path / "tiny")
    for _ in range(3):
        publish(source, models)
    with np.load(models / "tiny" / "3" / VOCABULARIES_FILE) as archive:
        others = {name: values[::-1] for name, values in archive.items()}
    np.savez(models / "tiny" / "3" / VOCABULARIES_FILE, **others)
    describe(models / "tiny" / "3", version=3)
    gate = gate_of(executor)

    def encoder(version: int) -> Encoder:
        bundle = load(models / "tiny" / str(version))
        return gate._encoder(bundle)

    first = encoder(1)
    assert encoder(2) is first
    assert encoder(3) is not first
    kept = weakref.ref(first)
    del first
    gc.collect()
    assert kept() is None  # no version uses it any more


def test_features_are_loaded_before_a_version_is_let_in(
    models: Path, admit: Admit, tmp_path: Path
) -> None:
    publish(write_bundle(tmp_path / "tiny"), models)
    seen: list[tuple[Bundle, Encoder]] = []
    version = admit(load_features=lambda bundle, encoder: seen.append((bundle, encoder)))
    ((bundle, encoder),) = seen
    assert bundle.manifest == version.manifest
    assert encoder is version.encoder

    def fail(bundle: Bundle, encoder: Encoder) -> None:
        raise OSError("no such file: users.parquet")

    reason, detail = refusal(admit, load_features=fail)
    assert (reason, detail) == ("features_unusable", "no such file: users.parquet")


def truncate(name: str) -> Change:
    return lambda path: (path / name).write_bytes((path / name).read_bytes()[:-1])


def flip(name: str) -> Change:
    def change(path: Path) -> None:
        content = bytearray((path / name).read_bytes())
        content[len(content) // 2] ^= 1
        (path / name).write_bytes(content)

    return change


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncate("user.onnx"), "digest_mismatch"),
        (truncate("golden.npz"), "digest_mismatch"),
        (flip("joint.onnx"), "digest_mismatch"),
        (flip("vocabularies.npz"), "digest_mismatch"),
        (truncate("manifest.json"), "digest_mismatch"),
        (lambda path: (path / "item.onnx").unlink(), "file_missing"),
        (lambda path: (path / "manifest.json").unlink(), "file_missing"),
        (lambda path: (path / "manifest.json").write_text("{}"), "schema_version_unknown"),
        (lambda path: (path / "manifest.json").write_text("["), "manifest_invalid"),
    ],
)
def test_a_damaged_version_is_refused(
    models: Path, admit: Admit, tmp_path: Path, damage: Change, reason: str
) -> None:
    damage(publish(write_bundle(tmp_path / "tiny"), models))
    assert refusal(admit)[0] == reason


def test_a_version_that_is_not_there_is_refused(admit: Admit) -> None:
    assert refusal(admit, version=9)[0] == "file_missing"


def test_a_version_in_another_ones_place_is_refused(
    models: Path, admit: Admit, tmp_path: Path
) -> None:
    target = publish(write_bundle(tmp_path / "tiny"), models)
    target.rename(models / "tiny" / "2")
    assert refusal(admit, version=2) == (
        "manifest_invalid",
        "manifest says tiny 1, the directory tiny 2",
    )
    describe(models / "tiny" / "2", model="other", version=2)
    assert refusal(admit, version=2)[1].startswith("manifest says other 2, the directory tiny 2")


def rewrite_constant(name: str, value: float) -> Change:
    """Another number in the joint graph; what is written is a good graph of another model."""

    def change(path: Path) -> None:
        model = onnx.load(str(path / "joint.onnx"))
        for constant in model.graph.initializer:
            if constant.name == name:
                array = np.full_like(numpy_helper.to_array(constant), value)
                constant.CopyFrom(numpy_helper.from_array(array, name))
        onnx.save(model, str(path / "joint.onnx"))

    return change


def swap_sides(path: Path) -> None:
    user, item = (path / "user.onnx").read_bytes(), (path / "item.onnx").read_bytes()
    (path / "user.onnx").write_bytes(item)
    (path / "item.onnx").write_bytes(user)


def other_array(file: str, **arrays: Any) -> Change:
    return lambda path: np.savez(path / file, **arrays)


@pytest.mark.parametrize(
    ("change", "reason", "detail"),
    [
        (lambda path: None, None, ""),
        (rewrite_constant("bias", 0.01), "golden_mismatch", "away from the exporter's"),
        (rewrite_constant("bias", float("nan")), "scores_not_finite", "not finite: click"),
        (swap_sides, "graph_mismatch", "user.onnx: has inputs"),
        (lambda path: (path / "user.onnx").write_bytes(b"no graph"), "graph_invalid", "refuses"),
        (
            other_array(VOCABULARIES_FILE, **{"item.id": np.zeros(5, np.uint64)}),
            "manifest_invalid",
            "twice",
        ),
        (other_array(GOLDEN_FILE, users=np.zeros(1)), "manifest_invalid", "golden.npz"),
    ],
)
def test_what_is_published_wrong_is_refused(
    models: Path,
    admit: Admit,
    tmp_path: Path,
    change: Change,
    reason: str | None,
    detail: str,
) -> None:
    """Every digest is right: it was exported so."""
    path = write_bundle(tmp_path / "tiny")
    change(path)
    describe(path)
    publish(path, models)
    if reason is None:
        assert admit().manifest.version == 1
        return
    found, said = refusal(admit)
    assert found == reason
    assert detail in said


def spoil(value: float) -> Callable[[Any], Any]:
    def change(scores: Any) -> Any:
        scores[-1, -1] += value
        return scores

    return change


@pytest.mark.parametrize(
    ("golden", "reason"),
    [
        (spoil(0.00005), None),  # other CPUs sum in another order
        (spoil(0.001), "golden_mismatch"),
        pytest.param(spoil(float("inf")), "golden_mismatch"),
        pytest.param(spoil(float("nan")), "golden_mismatch"),
        (lambda scores: scores[:-1], "array_invalid"),
        (lambda scores: scores[:, :1], "array_invalid"),
    ],
)
def test_golden_scores_are_held_against_the_models(
    models: Path, admit: Admit, tmp_path: Path, golden: Any, reason: str | None
) -> None:
    publish(write_bundle(tmp_path / "tiny", golden=golden), models)
    if reason is None:
        admit()
    else:
        assert refusal(admit)[0] == reason


def test_golden_rows_of_another_schema_are_refused(
    models: Path, admit: Admit, tmp_path: Path
) -> None:
    path = write_bundle(tmp_path / "tiny")
    describe(path, features=[*SCHEMA.features, Number(name="size", entity="item")])
    publish(path, models)
    assert refusal(admit)[0] == "golden_failed"


def test_a_stage_of_another_width_is_refused(models: Path, admit: Admit, tmp_path: Path) -> None:
    three = ("click", "like", "share")
    path = write_bundle(tmp_path / "tiny", tasks=three, golden=lambda scores: scores[:, :2])
    describe(path, tasks=("click", "like"), stages=stages(2))
    publish(path, models)
    assert refusal(admit)[0] == "graph_mismatch"


def test_formulas_are_compiled_for_the_version(models: Path, admit: Admit, tmp_path: Path) -> None:
    publish(write_bundle(tmp_path / "tiny"), models)
    fusions = models / "tiny" / "fusions"
    assert admit().formulas.fusions == {}
    (fusions / "default.yaml").write_text("formula: click * like + item.price\n")
    assert list(admit().formulas.fusions) == ["default"]
    (fusions / "second.yaml").write_text("formula: click + shares\n")
    reason, detail = refusal(admit)
    assert reason == "fusion_invalid"
    assert "unknown name 'shares'" in detail
    assert "second.yaml" in detail


def test_a_model_may_have_no_formulas(models: Path, admit: Admit, tmp_path: Path) -> None:
    publish(write_bundle(tmp_path / "tiny"), models)
    (models / "tiny" / "fusions").rmdir()
    assert admit().formulas.fusions == {}
