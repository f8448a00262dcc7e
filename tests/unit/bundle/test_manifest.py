"""The manifest: one canonical form, that carries the digest of itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.errors import BundleError, DigestMismatch, ManifestInvalid, SchemaVersionUnknown
from bundle.manifest import Manifest, Task, parse, serialise
from bundle.stages import Stage
from tests.unit.bundle.tiny import describe, stages, write_bundle

Content = dict[str, Any]
Change = Callable[[Content], object]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    path = write_bundle(tmp_path_factory.mktemp("manifest") / "tiny")
    return describe(path, training={"data": "Müsli", "auc": {"click": 0.75}, "seed": 1})


def test_a_manifest_survives_its_bytes(manifest: Manifest) -> None:
    raw = serialise(manifest)
    assert parse(raw) == manifest
    assert serialise(parse(raw)) == raw
    assert parse(raw).task_names == ("click", "like")


def test_the_digest_is_of_the_content(manifest: Manifest) -> None:
    content = json.loads(serialise(manifest))
    found = content.pop("digest")
    body = json.dumps(content, sort_keys=True, ensure_ascii=False)
    assert found == hashlib.sha256(body.encode()).hexdigest()


def test_the_form_is_for_people_too(manifest: Manifest) -> None:
    text = serialise(manifest).decode()
    assert '\n "model": "tiny",\n' in text
    assert "Müsli" in text
    assert text.endswith("}\n")


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_no_changed_byte_goes_unseen(manifest: Manifest, data: st.DataObject) -> None:
    raw = bytearray(serialise(manifest))
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BundleError):
        parse(bytes(raw))


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_no_missing_or_added_byte_goes_unseen(manifest: Manifest, data: st.DataObject) -> None:
    raw = serialise(manifest)
    length = data.draw(st.integers(0, len(raw) - 1))
    for changed in (raw[:length], raw + b" ", raw + raw[-1:], b"\n" + raw):
        with pytest.raises(BundleError):
            parse(changed)


def test_the_same_content_in_another_form_is_refused(manifest: Manifest) -> None:
    content = json.loads(serialise(manifest))
    for text in (
        json.dumps(content),
        json.dumps(content, indent=1),  # ASCII
        json.dumps(dict(reversed(content.items())), indent=1, ensure_ascii=False) + "\n",
    ):
        with pytest.raises(DigestMismatch, match="changed since it was published"):
            parse(text.encode())


@pytest.mark.parametrize("version", [0, 2, "1", None, 1.5, []])
def test_another_schema_version_is_not_read(manifest: Manifest, version: object) -> None:
    content = json.loads(serialise(manifest)) | {"schema_version": version, "features": "new form"}
    with pytest.raises(SchemaVersionUnknown) as caught:
        parse(json.dumps(content).encode())
    assert str(caught.value) == (f"manifest.json: schema_version {version!r}; this release reads 1")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"1", "not a JSON object"),
        (b"null", "not a JSON object"),
    ],
)
def test_what_is_no_manifest_at_all(raw: bytes, message: str) -> None:
    with pytest.raises(ManifestInvalid, match=message):
        parse(raw)


def mixed(*widths: int, layer: int = 6) -> Change:
    """A joint stage of two gates, with parts of these widths; the first has a layer."""

    def change(content: Any) -> None:
        parts = [{"tensor": f"part_{at}", "width": w, "relu": True} for at, w in enumerate(widths)]
        parts[0]["layers"] = [{"width": layer, "weight": "w", "bias": None}]
        joint = content["stages"]["joint"]
        joint |= {"first_layer": parts, "mixtures": {"tensors": ["a", "b"], "mask": None}}

    return change


def level(
    streams: tuple[int, int] = (0, 1),
    widths: tuple[int, int] = (5, 5),
    gates: tuple[int, ...] = (2, 2),
    below: bool = True,
) -> Change:
    """Two experts that read these streams of a joint stage, and gates of these widths."""

    def branch(stream: int, width: int) -> Content:
        return {"stream": stream, "layers": [{"width": width, "weight": "w", "bias": "b"}]}

    def change(content: Any) -> None:
        mixed(8, 6, 4)(content)
        joint = content["stages"]["joint"]
        joint["levels"] = [
            {
                "experts": [branch(*each) for each in zip(streams, widths, strict=True)],
                "gates": [branch(0, width) for width in gates],
                "mixtures": {"tensors": ["c", "d"], "mask": "mask"},
            }
        ]
        if not below:
            del joint["mixtures"]

    return change


def drop(key: str) -> Change:
    return lambda content: content.pop(key)


def put(*path: Any, value: Any) -> Change:
    def change(content: Any) -> None:
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("model"), "model: Field required"),
        (drop("files"), "files: Field required"),
        (put("owner", value="me"), "owner: Extra inputs are not permitted"),
        (put("model", value="../up"), "model: "),
        (put("model", value=".hidden"), "model: "),
        (put("feature_set", value="a/b"), "feature_set: "),
        (put("version", value=-1), "version: "),
        (put("tasks", value=[]), "tasks: "),
        (put("tasks", 1, "name", value="click"), "tasks declared twice: ('click', 'click')"),
        (put("tasks", 1, "name", value="a task"), "tasks.1.name: "),
        (put("tasks", 1, "kind", value="ranking"), "tasks.1.kind: "),
        (put("stages", "joint", "output_width", value=3), "stages.joint: 3 outputs for 2 tasks"),
        (put("stages", "user", "file", value="../user.onnx"), "stages.user.file: "),
        (put("stages", "user", "file", value="u.onnx"), "files: no digest for u.onnx"),
        (lambda c: c["files"].pop("golden.npz"), "files: no digest for golden.npz"),
        (lambda c: c["files"].pop("vocabularies.npz"), "files: no digest for vocabularies.npz"),
        (
            put("samples", "item", value={"file": "items.parquet", "key": "id"}),
            "files: no digest for items.parquet",
        ),
        (put("files", "item.onnx", "sha256", value="0" * 63), "files.item.onnx.sha256: "),
        (put("files", "item.onnx", "bytes", value=-1), "files.item.onnx.bytes: "),
        (put("files", "/etc/passwd", value={"bytes": 1, "sha256": "0" * 64}), "files."),
        (put("features", "features", 0, "std", value=0), "features.features.0.number.std: "),
        (mixed(8), "stages.joint: Value error, mixtures: 2 gates need experts"),
        (mixed(8, 7, 4), "mixtures: 2 gates need experts of one width in first_layer"),
        (mixed(8, 6, 5), "after them a part as wide as gates times experts"),
        (mixed(8, 6, 4, layer=0), "first_layer.0.layers.0.width: "),
        (level(streams=(0, 2)), "levels.0: experts of one width and 2 gates, as wide as there are"),
        (level(gates=(3, 2)), "levels.0: experts of one width and 2 gates, as wide as there are"),
        (level(gates=(2,)), "levels.0: experts of one width and 2 gates, as wide as there are"),
        (level(widths=(5, 6)), "must read some of 2 mixtures of the level below"),
        (level(below=False), "must read some of 0 mixtures of the level below"),
        (put("parity", "max_abs_difference", value=float("nan")), "not JSON compliant"),
    ],
)
def test_a_contradiction_is_named(manifest: Manifest, change: Change, message: str) -> None:
    content = json.loads(serialise(manifest))
    change(content)
    with pytest.raises(ManifestInvalid) as caught:
        parse(json.dumps(content).encode())
    assert str(caught.value).startswith("manifest.json: ")
    assert message in str(caught.value)


def test_what_may_be_computed_ahead_is_the_parts_or_what_gates_have_mixed_last(
    manifest: Manifest,
) -> None:
    content = json.loads(serialise(manifest))
    mixed(8, 6, 4)(content)
    joint = Stage.model_validate(content["stages"]["joint"])
    assert joint.computed_ahead == {"a": 6, "b": 6}
    level()(content)
    assert Stage.model_validate(content["stages"]["joint"]).computed_ahead == {"c": 5, "d": 5}
    parts = joint.model_copy(update={"mixtures": None})
    assert parts.computed_ahead == {"part_0": 6, "part_1": 6, "part_2": 4}
    assert Stage.model_validate_json(parts.model_dump_json()) == parts
    assert "mixtures" not in parts.model_dump()


def test_a_manifest_cannot_be_changed_in_place(manifest: Manifest) -> None:
    with pytest.raises(ValueError, match="frozen"):
        manifest.version = 2  # type: ignore[misc]


def test_a_manifest_that_contradicts_itself_cannot_be_made(manifest: Manifest) -> None:
    fields = dict(manifest) | {"tasks": (Task(name="click", kind="binary"),)}
    with pytest.raises(ValueError, match=r"stages\.joint: 2 outputs for 1 tasks"):
        Manifest(**fields)
    assert Manifest(**(fields | {"stages": stages(1)})).task_names == ("click",)
