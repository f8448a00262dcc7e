"""A complete bundle in a few kilobytes, for tests: real ONNX stages, real golden rows.

    user_tensor = [ids, numbers] @ U        item_tensor = [ids, numbers] @ I
    task_scores = sigmoid(0.1 x (user_tensor[user_row] + item_tensor) @ J + bias)

Another `bias` gives another version of the model: other scores for the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from bundle.arrays import Golden
from bundle.encoding import Encoded, Encoder
from bundle.manifest import (
    GOLDEN_FILE,
    MANIFEST_FILE,
    VOCABULARIES_FILE,
    Manifest,
    Parity,
    Task,
    serialise,
)
from bundle.packing import hash_value
from bundle.rows import Rows
from bundle.schema import Categorical, Feature, FeatureSchema, IdList, Number
from bundle.stages import Stage, Stages
from bundle.store import digest

FILES = ("golden.npz", "item.onnx", "joint.onnx", "user.onnx", "vocabularies.npz")
ITEM_IDS = ("10", "11", "12", "13", "14")
SCHEMA = FeatureSchema(
    features=(
        Number(name="age", entity="user", mean=30.0, std=10.0, default=30.0),
        IdList(name="history", entity="user", max_length=3, shares="item.id"),
        Number(name="hour", entity="context", mean=12.0, std=6.0, default=12.0),
        Categorical(name="id", entity="item", vocabulary_size=len(ITEM_IDS)),
        Number(name="price", entity="item", mean=5.0, std=2.0, default=5.0),
    )
)
VOCABULARIES = {"item.id": np.array([hash_value(value) for value in ITEM_IDS], np.uint64)}
_WIDTH = 4
_WIDTHS = {"user": 3 + 2, "item": 1 + 1}

Array = npt.NDArray[np.float32]


def matrix(rows: int, columns: int, seed: int) -> Array:
    return np.random.default_rng(seed).uniform(-1, 1, (rows, columns)).astype(np.float32)


def reference_scores(
    users: Encoded, items: Encoded, user_row: npt.NDArray[np.int64], tasks: int, bias: float = 0.0
) -> Array:
    """What the graphs of `write_bundle` compute, in numpy."""

    def side(encoded: Encoded, seed: int) -> Array:
        inputs = np.concatenate((encoded.ids.astype(np.float32), encoded.numbers), axis=1)
        product: Array = inputs @ matrix(inputs.shape[1], _WIDTH, seed)
        return product

    joined = side(users, 1)[user_row] + side(items, 2)
    logits = 0.1 * (joined @ matrix(_WIDTH, tasks, 3)) + np.float32(bias)
    scores: Array = (1 / (1 + np.exp(-logits))).astype(np.float32)
    return scores


def golden_rows(encoder: Encoder) -> dict[str, Any]:
    """Raw rows of two users and five items, packed."""
    layouts = encoder.layouts
    return {
        "users": layouts["user"].pack({"age": [25, None], "history": [["10", "99"], None]}, 2),
        "contexts": layouts["context"].pack({"hour": [20, 3]}, 2),
        "items": layouts["item"].pack(
            {"id": ["10", "11", "77", None, "14"], "price": [1.0, 2.5, None, 9.0, 4.0]}, 5
        ),
        "user_row": np.array([0, 0, 1, 1, 0], np.int64),
    }


def write_bundle(
    path: Path,
    *,
    model: str = "tiny",
    bias: float = 0.0,
    tasks: Sequence[str] = ("click", "like"),
    golden: Callable[[Array], Array] = lambda scores: scores,
    version: int = 0,
) -> Path:
    """Write an unpublished bundle directory.

    Args:
        golden: changes the golden scores, to make a bundle that does not give them.
    """
    path.mkdir(parents=True)
    encoder = Encoder(SCHEMA, VOCABULARIES)
    rows = golden_rows(encoder)
    scores = reference_scores(
        encoder.user(rows["users"], rows["contexts"]),
        encoder.item(rows["items"]),
        rows["user_row"],
        len(tasks),
        bias,
    )
    Golden(**rows, scores=golden(scores)).save(path / GOLDEN_FILE)
    np.savez(path / VOCABULARIES_FILE, **VOCABULARIES)  # type: ignore[arg-type]
    _write_side(path / "user.onnx", "user", 1)
    _write_side(path / "item.onnx", "item", 2)
    _write_joint(path / "joint.onnx", len(tasks), bias)
    describe(path, model=model, tasks=tasks, version=version)
    return path


def describe(
    path: Path,
    *,
    model: str = "tiny",
    tasks: Sequence[str] = ("click", "like"),
    version: int = 0,
    features: Sequence[Feature] = SCHEMA.features,
    **changes: Any,
) -> Manifest:
    """Write the manifest of the files that are in `path`, whatever they hold."""
    fields: dict[str, Any] = {
        "model": model,
        "version": version,
        "family": "linear",
        "created_at": "2026-01-01T00:00:00+00:00",
        "feature_set": "tiny",
        "features": FeatureSchema(features=tuple(features)),
        "tasks": tuple(Task(name=name, kind="binary") for name in tasks),
        "stages": stages(len(tasks)),
        "parity": Parity(max_abs_difference=0.0, rows=(1,), users=(1,)),
        "files": {each.name: digest(each) for each in path.iterdir() if each.name != MANIFEST_FILE},
    }
    manifest = Manifest(**(fields | changes))
    (path / MANIFEST_FILE).write_bytes(serialise(manifest))
    return manifest


def stages(tasks: int) -> Stages:
    def side(name: str) -> Stage:
        return Stage(
            file=f"{name}.onnx",
            inputs=("ids", "numbers"),
            output=f"{name}_tensor",
            output_width=_WIDTH,
        )

    joint = Stage(
        file="joint.onnx",
        inputs=("user_tensor", "item_tensor", "user_row"),
        output="task_scores",
        output_width=tasks,
    )
    return Stages(user=side("user"), item=side("item"), joint=joint)


def item_rows(encoder: Encoder, ids: Sequence[str]) -> Rows:
    return encoder.layouts["item"].pack(
        {"id": ids, "price": [float(len(i)) for i in ids]}, len(ids)
    )


def _write_side(path: Path, side: str, seed: int) -> None:
    nodes = [
        helper.make_node("Cast", ["ids"], ["float_ids"], to=TensorProto.FLOAT),
        helper.make_node("Concat", ["float_ids", "numbers"], ["inputs"], axis=1),
        helper.make_node("MatMul", ["inputs", "weight"], [f"{side}_tensor"]),
    ]
    _save(
        path,
        nodes,
        {"ids": (TensorProto.INT32, 2), "numbers": (TensorProto.FLOAT, 2)},
        f"{side}_tensor",
        {"weight": matrix(_WIDTHS[side], _WIDTH, seed)},
    )


def _write_joint(path: Path, tasks: int, bias: float) -> None:
    nodes = [
        helper.make_node("Gather", ["user_tensor", "user_row"], ["users"], axis=0),
        helper.make_node("Add", ["users", "item_tensor"], ["joined"]),
        helper.make_node("MatMul", ["joined", "weight"], ["product"]),
        helper.make_node("Mul", ["product", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "bias"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["task_scores"]),
    ]
    _save(
        path,
        nodes,
        {
            "user_tensor": (TensorProto.FLOAT, 2),
            "item_tensor": (TensorProto.FLOAT, 2),
            "user_row": (TensorProto.INT64, 1),
        },
        "task_scores",
        {
            "weight": matrix(_WIDTH, tasks, 3),
            "scale": np.array(0.1, np.float32),
            "bias": np.array(bias, np.float32),
        },
    )


def _save(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, int]],
    output: str,
    constants: dict[str, Array],
) -> None:
    graph = helper.make_graph(
        nodes,
        path.stem,
        [
            helper.make_tensor_value_info(name, kind, [None] * rank)
            for name, (kind, rank) in inputs.items()
        ],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [None, None])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, str(path))
