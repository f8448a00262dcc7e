"""Import: an ONNX graph from elsewhere and its specification -> a bundle of a single stage."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

import numpy as np
import onnx

from bundle.arrays import Golden
from bundle.manifest import Manifest
from model_export.bundling import Description, complete
from model_export.data.fit import FittedFeatures
from model_export.errors import ParityFailed, SpecInvalid
from model_export.foreign import reference
from model_export.foreign.examples import ExampleRows, read_examples, read_samples
from model_export.foreign.signature import Signature
from model_export.foreign.specification import Specification
from model_export.foreign.wrap import wrap

_GOLDEN_ROWS = 32


def import_graph(file: Path, specification: Specification, target: Path) -> Manifest:
    """Write a bundle, replacing what is in `target`.

    Args:
        file: the graph; weights that it keeps in files beside it are read from there.

    Raises:
        SpecInvalid: the graph cannot be read, or the specification does not fit it.
        ParityFailed: the bundle does not give the graph's own scores, or those that were given;
            or a row's scores depend on the rows beside it.
    """
    signature = Signature.of(_read(file, weights=False))
    signature.check(specification)
    features = FittedFeatures(specification.features, specification.vocabularies)
    rows = read_examples(specification, features.encoder())
    samples = read_samples(specification)
    graph = reference.ForeignGraph(file, signature, specification)
    golden, whose = _golden(rows, graph, specification)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    try:
        stages = wrap(_read(file, weights=True), specification, target)
        parity = reference.check(target, stages, graph, specification, rows, whose)
        described = Description(
            name=specification.spec.model,
            family="imported",
            tasks=tuple(task.served() for task in specification.spec.tasks),
            features=features,
            samples=samples,
            training={
                "imported": file.name,
                "description": specification.spec.description,
                "inputs": {name: list(keys) for name, keys in specification.spec.inputs.items()},
            },
        )
        return complete(target, described, stages, parity, golden)
    except BaseException:
        shutil.rmtree(target)
        raise


def _golden(
    rows: ExampleRows, graph: reference.ForeignGraph, specification: Specification
) -> tuple[Golden, Literal["given", "imported_graph"]]:
    """The golden rows, and whose scores they have."""
    every = np.arange(len(rows), dtype=np.int64)
    scores = graph.scores(*rows.encoded(len(rows), len(rows)), every)
    if not np.isfinite(scores).all():
        row, task = np.argwhere(~np.isfinite(scores))[0]
        name = specification.spec.tasks[task].name
        raise specification.error(f"examples[{row}]", f"the graph's score of {name} is not finite")
    reference.check_rows_apart(graph, specification, rows, scores)
    whose: Literal["given", "imported_graph"] = "imported_graph"
    if rows.given is not None:
        whose = "given"
        for task, declared in enumerate(specification.spec.tasks):
            differences = reference.differences(rows.given[:, task], scores[:, task])
            row = int(differences.argmax())  # a NaN, if there is one
            if not differences[row] <= reference.GIVEN_LIMIT:
                raise ParityFailed(
                    f"examples[{row}]: {declared.name} is {rows.given[row, task]:.6g} there, the "
                    f"graph gives {scores[row, task]:.6g}; check inputs, indices and activation"
                )
        scores = rows.given
    first = slice(_GOLDEN_ROWS)
    golden = Golden(
        users=rows.users[first],
        contexts=rows.contexts[first],
        items=rows.items[first],
        user_row=every[first],
        scores=scores[first],
    )
    return golden, whose


def _read(file: Path, weights: bool) -> onnx.ModelProto:
    try:
        return onnx.load(str(file), load_external_data=weights)
    except OSError as error:
        raise SpecInvalid(f"{file}: {error.strerror or error}") from error
    except Exception as error:  # protobuf's and onnx's own exceptions share no base class
        raise SpecInvalid(f"{file}: not an ONNX graph: {error}") from error
