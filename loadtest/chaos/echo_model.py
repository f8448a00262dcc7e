"""A model that tells which rows it was given: its task scores are feature values.

user   number                 1 .. USERS, or -1 where the row is the default
item   number, value          1 .. ITEMS, or -1; `value` is changed while requests run
tasks  user_number, item_number, value
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import TensorProto, helper

from bundle.arrays import Golden
from bundle.encoding import Encoder
from bundle.manifest import (
    GOLDEN_FILE,
    MANIFEST_FILE,
    VOCABULARIES_FILE,
    Manifest,
    Parity,
    Sample,
    Task,
    serialise,
)
from bundle.rows import RowLayout
from bundle.schema import Entity, FeatureSchema, IdList, Number
from bundle.stages import Stage, Stages
from bundle.store import digest, publish

MODEL = "echo"
USERS, ITEMS = 400, 1_500
"""Numbers up to 2,048 are exact in float16, whatever tensors are kept as."""

DEFAULT = -1.0
TASKS = ("user_number", "item_number", "value")
SCHEMA = FeatureSchema(
    features=(
        Number(name="number", entity="user", default=DEFAULT),
        IdList(name="history", entity="user", max_length=50, hash_buckets=1_000),
        Number(name="number", entity="item", default=DEFAULT),
        Number(name="value", entity="item", default=DEFAULT),
    )
)
_HISTORY = ["1", "2", "3"]


def columns(entity: Entity, count: int) -> dict[str, list[object]]:
    """The features of users or items 1 to `count`."""
    numbers: list[object] = [float(n) for n in range(1, count + 1)]
    if entity == "user":
        return {"number": numbers, "history": [_HISTORY] * count}
    return {"number": numbers, "value": [0.0] * count}


def item_row(number: int, value: float, written_ms: int) -> bytes:
    """The packed row of one item."""
    layout = RowLayout(SCHEMA, "item")
    rows = layout.pack({"number": [float(number)], "value": [value]}, 1)
    return bytes(layout.seal(rows, written_ms)[0].tobytes())


def older_row() -> bytes:
    """An intact row of the time when items had no `value`."""
    older = FeatureSchema(features=tuple(f for f in SCHEMA.features if f.name == "number"))
    layout = RowLayout(older, "item")
    return bytes(layout.seal(layout.pack({"number": [7.0]}, 1), 1)[0].tobytes())


def publish_echo(models: Path, scratch: Path) -> None:
    """Publish the model into an empty directory of models."""
    bundle = scratch / "echo"
    bundle.mkdir()
    encoder = Encoder(SCHEMA, {})
    golden = Golden(
        users=encoder.layouts["user"].pack(columns("user", 2), 2),
        contexts=encoder.layouts["context"].empty(2),
        items=encoder.layouts["item"].pack(columns("item", 3), 3),
        user_row=np.array([0, 1, 1], np.int64),
        scores=np.array([[1, 1, 0], [2, 2, 0], [2, 3, 0]], np.float32),
    )
    golden.save(bundle / GOLDEN_FILE)
    np.savez(bundle / VOCABULARIES_FILE, allow_pickle=False)
    samples: dict[Entity, Sample] = {}
    entities: tuple[tuple[Entity, int], ...] = (("user", USERS), ("item", ITEMS))
    for entity, count in entities:
        file, key = f"sample_{entity}.parquet", f"{entity}_id"
        table = {key: list(range(1, count + 1)), **columns(entity, count)}
        pq.write_table(pa.table(table), bundle / file)
        samples[entity] = Sample(file=file, key=key)
    stages = Stages(
        user=Stage(file="user.onnx", inputs=("numbers",), output="user_tensor", output_width=1),
        item=Stage(file="item.onnx", inputs=("numbers",), output="item_tensor", output_width=2),
        joint=Stage(
            file="joint.onnx",
            inputs=("user_tensor", "item_tensor", "user_row"),
            output="task_scores",
            output_width=len(TASKS),
        ),
    )
    for side in (stages.user, stages.item):
        node = helper.make_node("Identity", ["numbers"], [side.output])
        _save(bundle / side.file, [node], {"numbers": 2}, side.output)
    nodes = [
        helper.make_node("Gather", ["user_tensor", "user_row"], ["users"], axis=0),
        helper.make_node("Concat", ["users", "item_tensor"], ["task_scores"], axis=1),
    ]
    inputs = {"user_tensor": 2, "item_tensor": 2, "user_row": 1}
    _save(bundle / "joint.onnx", nodes, inputs, "task_scores")
    manifest = Manifest(
        model=MODEL,
        family="echo",
        created_at="2026-01-01T00:00:00+00:00",
        feature_set=MODEL,
        features=SCHEMA,
        tasks=tuple(Task(name=name, kind="regression") for name in TASKS),
        stages=stages,
        parity=Parity(max_abs_difference=0.0, rows=(3,), users=(2,)),
        samples=samples,
        files={path.name: digest(path) for path in sorted(bundle.iterdir())},
    )
    (bundle / MANIFEST_FILE).write_bytes(serialise(manifest))
    publish(bundle, models)
    fusions = models / MODEL / "fusions"
    fusions.mkdir()
    (fusions / "default.yaml").write_text("formula: item_number\n")


def _save(path: Path, nodes: Sequence[onnx.NodeProto], inputs: dict[str, int], output: str) -> None:
    kinds = {"user_row": TensorProto.INT64}
    graph = helper.make_graph(
        nodes,
        path.stem,
        [
            helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), [None] * rank)
            for name, rank in inputs.items()
        ],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [None, None])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, str(path))
