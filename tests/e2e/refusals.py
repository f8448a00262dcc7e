"""What can be wrong with a version, and how it must be refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bundle.manifest import MANIFEST_FILE
from tests.e2e.damages import (
    a_link_to_elsewhere,
    arrays_of,
    change_byte,
    edit_graph,
    edit_manifest,
    encrypted_vocabularies,
    fifo,
    half_copied,
    huge_golden_array,
    item_stage_width,
    link,
    link_to_nowhere,
    long_name_in_manifest,
    nested_manifest,
    not_a_graph,
    of_a_future_opset,
    remove,
    sparse,
    stages_exchanged,
    truncate,
    under_another_number,
    unreadable,
    weights_not_a_number,
    with_a_custom_operator,
    with_a_huge_shape,
    with_float_ids,
    with_one_more_field,
    without_the_task,
)


@dataclass(frozen=True)
class Damage:
    """What is done to a version before it appears, and how it must be refused.

    Attributes:
        says: words that the reason must hold besides its code.
    """

    name: str
    damage: Callable[[Path], None]
    code: str
    says: str = ""


FLOATS, LITTLE = np.zeros(2), np.array([0, 0.001, 0], np.float32)
FILES = (
    "user.onnx",
    "item.onnx",
    "joint.onnx",
    "golden.npz",
    "vocabularies.npz",
    "sample_user.parquet",
    "sample_item.parquet",
)
DAMAGES = [
    *(Damage(f"byte changed: {n}", change_byte(n), "digest_mismatch", n) for n in FILES),
    Damage("first byte changed", change_byte("joint.onnx", 0), "digest_mismatch", "joint.onnx"),
    Damage("last byte changed", change_byte("joint.onnx", 1), "digest_mismatch", "joint.onnx"),
    *(Damage(f"truncated: {n}", truncate(n, 0.5), "digest_mismatch", n) for n in FILES),
    Damage("emptied", truncate("user.onnx", 0), "digest_mismatch", "user.onnx"),
    *(Damage(f"missing: {n}", remove(n), "file_missing", n) for n in FILES),
    Damage("terabytes", sparse("joint.onnx"), "digest_mismatch", "joint.onnx: 2199023255552 bytes"),
    Damage("a pipe", fifo("joint.onnx"), "file_unsafe", "joint.onnx"),
    Damage("symlink", link("item.onnx"), "file_unsafe", "item.onnx"),
    Damage("dangling symlink", link_to_nowhere("item.onnx"), "file_unsafe", "item.onnx"),
    Damage("manifest missing", remove(MANIFEST_FILE), "file_missing", MANIFEST_FILE),
    Damage("manifest truncated", truncate(MANIFEST_FILE, 0.5), "manifest_invalid", "not JSON"),
    Damage("manifest nested", nested_manifest, "manifest_invalid", "recursion"),
    Damage("manifest with a long name", long_name_in_manifest, "manifest_invalid", "kkk ..."),
    Damage("manifest of terabytes", sparse(MANIFEST_FILE), "manifest_invalid", "at most"),
    Damage("manifest a pipe", fifo(MANIFEST_FILE), "file_unsafe", MANIFEST_FILE),
    Damage("manifest linked", link(MANIFEST_FILE), "file_unsafe", MANIFEST_FILE),
    Damage(
        "manifest: byte changed",
        edit_manifest(b'"family": "mmoe"', b'"family": "mmof"'),
        "digest_mismatch",
        MANIFEST_FILE,
    ),
    Damage(
        "manifest: one space more",
        edit_manifest(b'"family": ', b'"family":  '),
        "digest_mismatch",
        MANIFEST_FILE,
    ),
    Damage(
        "manifest: of another release",
        edit_manifest(b'"schema_version": 1', b'"schema_version": 2'),
        "schema_version_unknown",
        "this release reads 1",
    ),
    Damage("manifest: another number", under_another_number, "manifest_invalid", "1000"),
    Damage("half copied", half_copied, "file_missing", "not in"),
    Damage("unreadable", unreadable("joint.onnx"), "file_unreadable", "nobody may read it"),
    Damage("unreadable directory", lambda version: version.chmod(0), "file_unreadable", "mode 0"),
    Damage("unreadable manifest", unreadable(MANIFEST_FILE), "file_unreadable", MANIFEST_FILE),
    Damage("a link to elsewhere", a_link_to_elsewhere, "file_unsafe", "must be a plain directory"),
    Damage("future opset", edit_graph("joint.onnx", of_a_future_opset), "opset_unsupported"),
    Damage("custom operator", edit_graph("item.onnx", with_a_custom_operator), "operator_unknown"),
    Damage(
        "huge declared shape",
        edit_graph("item.onnx", with_a_huge_shape),
        "graph_mismatch",
        "1,000,000,000,000 rows",
    ),
    Damage("huge golden array", huge_golden_array, "array_invalid", "golden.npz: scores.npy"),
    Damage("item tensors of another width", item_stage_width, "graph_mismatch", "promises 1"),
    Damage("vocabularies encrypted", encrypted_vocabularies, "manifest_invalid", "encrypted"),
    Damage(
        "vocabulary of floats",
        arrays_of("vocabularies.npz", lambda arrays: arrays.update(dict.fromkeys(arrays, FLOATS))),
        "array_invalid",
        "is float64 (2,), expected uint64",
    ),
    Damage(
        "golden rows of more features",
        arrays_of("golden.npz", with_one_more_field),
        "array_invalid",
        "items is",
    ),
    Damage(
        "golden scores complex",
        arrays_of("golden.npz", lambda arrays: arrays.update(scores=arrays["scores"] + 0j)),
        "array_invalid",
        "scores is complex64",
    ),
    Damage("ids as floats", edit_graph("user.onnx", with_float_ids), "graph_mismatch", "int32"),
    Damage(
        "golden scores differ",
        arrays_of("golden.npz", lambda arrays: arrays.update(scores=arrays["scores"] + LITTLE)),
        "golden_mismatch",
        "like",
    ),
    Damage("weights are NaN", weights_not_a_number, "scores_not_finite", "finite"),
    Damage("not a graph", not_a_graph, "graph_invalid", "item.onnx"),
    Damage("stages exchanged", stages_exchanged, "graph_mismatch", "promises"),
    Damage("a task is missing", without_the_task, "fusion_invalid", "unknown name 'like'"),
]
