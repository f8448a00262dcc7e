"""Scores of one published version from its files alone: the service has no part in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pyarrow.parquet as pq

from bundle import store
from bundle.encoding import Encoded
from bundle.rows import Rows
from bundle.schema import Entity
from bundle.stages import Stage, Stages
from loadtest.samples import SampleUnusable

Scores = npt.NDArray[np.float32]


class OfflineScores:
    """A version of three stages, opened by onnxruntime.

    Raises:
        BundleError: the directory does not verify.
        SampleUnusable: the version is a single graph.
    """

    def __init__(self, directory: Path) -> None:
        bundle = store.load(directory)
        stages = bundle.manifest.stages
        if not isinstance(stages, Stages):
            raise SampleUnusable(f"{directory}: a version of three stages is needed")
        self.tasks = bundle.manifest.task_names
        self._encoder = bundle.encoder()
        self._rows = {
            entity: {str(row[sample.key]): row for row in pq.read_table(path).to_pylist()}
            for entity, sample in bundle.manifest.samples.items()
            if (path := directory / sample.file)
        }
        self._stages = [
            _session(directory / stage.file) for stage in (stages.user, stages.item, stages.joint)
        ]

    def of_request(self, request: Mapping[str, Any]) -> Scores:
        """Task scores [N, T] of the candidates of a `/rank` request, in its order."""
        contexts = self._pack("context", [request.get("context", {})])
        users = self._pack("user", [self._rows["user"][str(request["user"]["id"])]])
        known = self._rows["item"]
        items = self._pack("item", [known[str(each)] for each in request["candidates"]["ids"]])
        return self.of_rows(users, contexts, items, np.zeros(len(items), np.int64))

    def of_rows(
        self, users: Rows, contexts: Rows, items: Rows, user_row: npt.NDArray[np.int64]
    ) -> Scores:
        """Task scores [N, T] of packed rows, as golden rows have them."""
        user, item, joint = self._stages
        feeds: dict[str, npt.NDArray[Any]] = {
            "user_tensor": _run(user, _inputs(self._encoder.user(users, contexts))),
            "item_tensor": _run(item, _inputs(self._encoder.item(items))),
            "user_row": user_row,
        }
        return _run(joint, feeds)

    def _pack(self, entity: Entity, rows: Sequence[Mapping[str, Any]]) -> Rows:
        layout = self._encoder.layouts[entity]
        columns = {name: [row.get(name) for row in rows] for name in layout.slots}
        return layout.pack(columns, len(rows))


def second_version(models: Path, model: str) -> None:
    """Publish version 2: version 1 with its joint stage's weights a little off.

    Its golden scores are what these weights give, so that it passes the gate.
    """
    import onnx
    from onnx import numpy_helper

    from bundle.manifest import GOLDEN_FILE, MANIFEST_FILE, Manifest, parse, serialise

    first = models / model / "1"
    source = models / model / ".second"
    source.mkdir()
    manifest = parse((first / MANIFEST_FILE).read_bytes())
    for name in manifest.files:
        (source / name).write_bytes((first / name).read_bytes())
    assert isinstance(manifest.stages, Stages)  # as its reader makes sure
    joint: Stage = manifest.stages.joint
    graph = onnx.load(source / joint.file)
    random = np.random.default_rng(2)
    for weight in graph.graph.initializer:
        if weight.data_type == onnx.TensorProto.FLOAT:
            value = numpy_helper.to_array(weight)
            changed = value * random.normal(1.0, 0.1, value.shape).astype(np.float32)
            weight.CopyFrom(numpy_helper.from_array(changed, weight.name))
    onnx.save(graph, source / joint.file)

    def seal() -> None:
        files = {name: store.digest(source / name) for name in manifest.files}
        sealed = Manifest.model_validate(manifest.model_dump() | {"files": files})
        (source / MANIFEST_FILE).write_bytes(serialise(sealed))

    seal()
    golden = store.load(source).golden()
    scores = OfflineScores(source).of_rows(
        golden.users, golden.contexts, golden.items, golden.user_row
    )
    replace(golden, scores=scores).save(source / GOLDEN_FILE)
    seal()
    store.publish(source, models, 2)
    for path in source.iterdir():
        path.unlink()
    source.rmdir()


def _session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _inputs(encoded: Encoded) -> dict[str, npt.NDArray[Any]]:
    return {"ids": encoded.ids, "numbers": encoded.numbers}


def _run(session: ort.InferenceSession, feeds: Mapping[str, npt.NDArray[Any]]) -> Scores:
    wanted = {each.name: feeds[each.name] for each in session.get_inputs()}
    (output,) = session.run(None, wanted)
    result: Scores = output
    return result
