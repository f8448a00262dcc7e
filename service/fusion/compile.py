"""Fuse stage: a fusion, compiled for the tasks of one model, and the order that it gives.

Compiled once per fusion and model; evaluated once per request, as plain numpy over all of the
request's candidates. Nothing that an author wrote is ever run by Python itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.fusion.errors import FusionError, Source, nearest
from service.fusion.formula import Fusion, Weight
from service.fusion.program import FeatureKind, Program, build_program

Features: TypeAlias = Mapping[str, NDArray[Any]]
NO_FEATURES: Features = MappingProxyType({})


@dataclass(frozen=True)
class CompiledFusion:
    """A fusion, compiled for a list of tasks. Immutable, so shared between requests.

    Args:
        name: of the fusion.
        version: of the fusion.
        tasks: the columns of `task_scores`, in order.
        tasks_used: those that the formula depends on, in the same order.
        features_used: the features that `evaluate` needs, such as `item.price`.
        weights: all weights of the fusion, by name.
        program: what `evaluate` runs.
    """

    name: str
    version: str
    tasks: tuple[str, ...]
    tasks_used: tuple[str, ...]
    features_used: tuple[str, ...]
    weights: Mapping[str, Weight]
    program: Program = field(repr=False)

    def bind_weights(self, overrides: Mapping[str, float]) -> Mapping[str, float]:
        """The value of every weight: the override, else the default.

        Raises:
            FusionError: an unknown weight, or a value outside its weight's bounds (NaN is).
        """
        for name, value in overrides.items():
            weight = self.weights.get(name)
            if weight is None:
                text = Source.whole("weights", name)
                known = nearest(name, self.weights)
                raise FusionError(f"unknown weight '{name}'{known}", text, 0, len(name))
            if not weight.minimum <= value <= weight.maximum:
                bounds = f"{weight.minimum:g} .. {weight.maximum:g}"
                text = Source.whole("weights", f"{name}: {value:g}")
                message = f"weight '{name}' must be within {bounds}, not {value:g}"
                raise FusionError(message, text, len(name) + 2, len(text.text))
        return {name: weight.default for name, weight in self.weights.items()} | dict(overrides)

    def evaluate(
        self,
        task_scores: NDArray[np.floating[Any]],
        weights: Mapping[str, float],
        features: Features = NO_FEATURES,
    ) -> NDArray[np.float64]:
        """Fuse the task scores of the candidates of one request.

        Args:
            task_scores: [N, T] float32 (or float64), columns as `tasks`.
            weights: as `bind_weights` gives them.
            features: at least `features_used`: [N] for `item.*`, one number for the others.

        Returns:
            [N] float64, best is largest; NaN or infinite where the operators' rules say so.

        Raises:
            ValueError: a shape that does not fit; KeyError: a weight or feature is missing. Both
                are the caller's mistakes, not an author's.
        """
        rows, columns = task_scores.shape
        if columns != len(self.tasks):
            raise ValueError(f"{columns} columns of task scores for {len(self.tasks)} tasks")
        if rows == 0:
            return np.empty(0)
        program = self.program
        slots = list(program.slots)
        by_task = np.array(task_scores.T, dtype=np.float64, order="C")
        for name, slot in program.tasks.items():
            slots[slot] = by_task[self.tasks.index(name)]
        for name, slot in program.weights.items():
            slots[slot] = float(weights[name])
        for name, slot in program.features.items():
            shape = (rows,) if name.startswith("item.") else ()
            slots[slot] = np.array(features[name], dtype=np.float64).reshape(shape)
        with np.errstate(all="ignore"):
            for slot, apply, operands in program.steps:
                slots[slot] = apply(*operands(slots))
        fused: NDArray[np.float64] = slots[program.result]
        return fused


def compile_fusion(
    fusion: Fusion, tasks: Sequence[str], features: Mapping[str, FeatureKind]
) -> CompiledFusion:
    """Compile a fusion for a model.

    Args:
        fusion: from `load_fusions` or `adhoc_fusion`.
        tasks: the model's tasks, in the order of its score columns.
        features: the kind of every feature by its qualified name, such as `item.price`: per
            candidate for `item.*`, per request for `user.*` and `context.*`. Only those of kind
            `number` and `bucketised` are usable, as the raw number.

    Raises:
        FusionError: an unknown name or function, a wrong type or number of operands, a formula
            that is no number per candidate; at its place in the file.
    """
    program = build_program(fusion, tasks, features)
    return CompiledFusion(
        name=fusion.name,
        version=fusion.version,
        tasks=tuple(tasks),
        tasks_used=tuple(task for task in tasks if task in program.tasks),
        features_used=tuple(sorted(program.features)),
        weights=MappingProxyType(fusion.file.weights),
        program=program,
    )


def ranking(fused: NDArray[np.float64]) -> tuple[NDArray[np.intp], int]:
    """The order that fused scores give.

    Args:
        fused: [N] float64.

    Returns:
        The candidates [N], best first; equal scores keep the order of the request, and those that
        are not finite come last, in the order of the request. Then how many are not finite.
    """
    finite = np.isfinite(fused)
    descending = np.where(finite, -fused, np.inf)
    return np.argsort(descending, kind="stable"), len(fused) - int(finite.sum())
