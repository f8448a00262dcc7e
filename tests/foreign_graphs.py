"""A graph that knows nothing of this project, with inputs of several kinds, and its specification.

    dense float32 [N, 3]    city int64 [N]    history int64 [N, 3]    film int32 [N, 1]
    -> logits float32 [N, 2], seconds float64 [N], label int64 [N]

Its indices are its own: cities 0, 1, 2 with 3 for any other, films 1 to 5 with 0 for none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import yaml
from onnx import TensorProto, helper, numpy_helper

from bundle import store
from model_export.foreign.importing import import_graph
from model_export.foreign.specification import Specification

CITIES = ("oslo", "rome", "lima")
FILMS = range(1, 6)
TASKS = ("click", "like", "seconds")
Row = dict[str, Any]

SPEC: dict[str, Any] = {
    "model": "foreign",
    "features": [
        {"name": "age", "entity": "user", "kind": "number", "mean": 30, "std": 10},
        {
            "name": "city",
            "entity": "user",
            "kind": "categorical",
            "vocabulary": list(CITIES),
            "indices": {"first": 0, "unknown": 3},
        },
        {
            "name": "history",
            "entity": "user",
            "kind": "id_list",
            "shares": "item.film",
            "max_length": 3,
        },
        {"name": "hour", "entity": "context", "kind": "number"},
        {
            "name": "film",
            "entity": "item",
            "kind": "categorical",
            "vocabulary": {"from": 1, "to": 5},
            "indices": {"first": 1, "unknown": 0},
        },
        {"name": "price", "entity": "item", "kind": "number"},
    ],
    "inputs": {
        "dense": ["user.age", "item.price", "context.hour"],
        "city": "user.city",
        "history": ["user.history"],
        "film": ["item.film"],
    },
    "tasks": [
        {
            "name": "click",
            "kind": "binary",
            "output": "logits",
            "column": 0,
            "activation": "sigmoid",
        },
        {
            "name": "like",
            "kind": "binary",
            "output": "logits",
            "column": 1,
            "activation": "sigmoid",
        },
        {"name": "seconds", "kind": "regression", "output": "seconds"},
    ],
    "examples": [
        {
            "user.age": 40,
            "user.city": "rome",
            "user.history": [2, 5],
            "context.hour": 0.5,
            "item.film": 3,
            "item.price": 2.5,
        },
        {
            "user.age": 20,
            "user.city": "elsewhere",
            "user.history": [],
            "context.hour": -1,
            "item.film": 1,
            "item.price": 0.5,
        },
        {
            "user.age": None,
            "user.city": "oslo",
            "user.history": [9, 1, 4],
            "context.hour": 2,
            "item.film": 77,
            "item.price": 1,
        },
    ],
    "fusion": {"formula": "click * like + 0 * seconds"},
}


def weights(name: str, *shape: int) -> npt.NDArray[np.float32]:
    seed = sum(map(ord, name))
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def write_graph(path: Path, *, external: bool = False, first_axis: str | int = "batch") -> Path:
    """Write the graph; `external` keeps its weights in a file beside it."""
    node = helper.make_node
    nodes = [
        node("Gather", ["cities", "city"], ["city_vectors"]),
        node("Gather", ["films", "history"], ["history_vectors"]),
        node("ReduceSum", ["history_vectors", "axis_1"], ["history_vector"], keepdims=0),
        node("Gather", ["films", "film"], ["film_vectors"]),
        node("Squeeze", ["film_vectors", "axis_1"], ["film_vector"]),
        node("Concat", ["dense", "city_vectors", "history_vector", "film_vector"], ["x"], axis=1),
        node("MatMul", ["x", "w1"], ["user_ids"]),  # a name that the bundle wants for itself
        node("Tanh", ["user_ids"], ["h"]),
        node("MatMul", ["h", "w2"], ["logits"]),
        node("MatMul", ["h", "w3"], ["second_columns"]),
        node("Squeeze", ["second_columns", "axis_1"], ["single_seconds"]),
        node("Cast", ["single_seconds"], ["seconds"], to=TensorProto.DOUBLE),
        node("ArgMax", ["logits"], ["label"], axis=1, keepdims=0),
    ]
    make = helper.make_tensor_value_info
    inputs = [
        make("dense", TensorProto.FLOAT, [first_axis, 3]),
        make("city", TensorProto.INT64, [first_axis]),
        make("history", TensorProto.INT64, [first_axis, 3]),
        make("film", TensorProto.INT32, [first_axis, 1]),
    ]
    outputs = [
        make("logits", TensorProto.FLOAT, [first_axis, 2]),
        make("seconds", TensorProto.DOUBLE, [first_axis]),
        make("label", TensorProto.INT64, [first_axis]),
    ]
    constants: dict[str, npt.NDArray[Any]] = {
        "cities": weights("cities", 4, 2),
        "films": weights("films", 6, 2),
        "w1": weights("w1", 9, 64) / 3,
        "w2": weights("w2", 64, 2) / 8,
        "w3": weights("w3", 64, 1),
        "axis_1": np.array([1], np.int64),
    }
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "foreign", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save_model(
        model,
        str(path),
        save_as_external_data=external,
        location="weights.bin" if external else None,
        size_threshold=256,
    )
    return path


def write_spec(path: Path, **changes: Any) -> Path:
    path.write_text(yaml.safe_dump(SPEC | changes))
    return path


def expected(graph: Path, rows: list[Row]) -> npt.NDArray[np.float64]:
    """The tasks' scores [N, T] of raw rows, fed as the graph's own makers would feed them."""

    def film(value: int) -> int:
        return value if value in FILMS else 0

    def history(values: list[int]) -> list[int]:
        return ([film(value) for value in values] + [0, 0, 0])[:3]

    def age(value: float | None) -> float:
        return ((0.0 if value is None else value) - 30) / 10

    feeds = {
        "dense": [[age(r["user.age"]), r["item.price"], r["context.hour"]] for r in rows],
        "city": [CITIES.index(c) if (c := r["user.city"]) in CITIES else 3 for r in rows],
        "history": [history(r["user.history"]) for r in rows],
        "film": [[film(r["item.film"])] for r in rows],
    }
    types = {"dense": np.float32, "city": np.int64, "history": np.int64, "film": np.int32}
    session = ort.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    arrays = {name: np.array(values, types[name]) for name, values in feeds.items()}
    logits, seconds = session.run(["logits", "seconds"], arrays)
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    return np.concatenate((probabilities, seconds[:, None]), axis=1)


def imported(graph: Path, **changes: Any) -> store.Bundle:
    """Import the graph with a changed specification."""
    specification = Specification(write_spec(graph.with_suffix(".yaml"), **changes))
    target = graph.parent / "bundle"
    import_graph(graph, specification, target)
    return store.load(target)
