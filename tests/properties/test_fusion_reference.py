"""The compiled formula against the independent reference, over random formulas and inputs."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from service.fusion.compile import compile_fusion
from service.fusion.directory import load_fusions
from service.fusion.formula import adhoc_fusion
from tests.properties.fusion_formulas import Tree, formulas, render
from tests.properties.fusion_reference import AmbiguousError, judge

EXAMPLES = int(os.environ.get("MULTIRANK_EXAMPLES", "2000"))
TASKS = ("click", "like", "watch")
FEATURES = ("item.price", "context.hour", "user.age")

pytestmark = pytest.mark.timeout(3600)

SPECIAL = (0.0, -0.0, 0.25, 0.5, 1.0, 2.0, -3.0, 2.0**-30, 800.0, math.nan, math.inf, -math.inf)

narrow = st.floats(0, 1, width=32) | st.floats(width=32)


def columns_of(
    rows: int, picks: bytes, scores: list[float], values: list[float]
) -> dict[str, list[float]]:
    """A column for every name; one value, repeated, for those of the request.

    A few drawn numbers, picked by bytes together with the special ones: quicker than a draw for
    each cell, and candidates often tie.
    """
    pick = iter(picks)
    pools = dict.fromkeys(TASKS, (*SPECIAL, *(scores * 4)))
    pools |= dict.fromkeys(FEATURES, (*SPECIAL, 1.7e308, -1.7e308, *(values * 4)))
    return {
        name: [pool[next(pick) % len(pool)] for _ in range(rows)]
        if name in TASKS or name.startswith("item.")
        else [pool[next(pick) % len(pool)]] * rows
        for name, pool in pools.items()
    }


columns = st.builds(
    columns_of,
    rows=st.integers(1, 6),
    picks=st.binary(min_size=32, max_size=32),
    scores=st.lists(narrow, min_size=3, max_size=3),
    values=st.lists(st.floats(), min_size=2, max_size=2),
)


def agrees(score: float, lowest: float, highest: float) -> bool:
    return lowest <= score <= highest or (math.isnan(score) and math.isnan(lowest))


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    tree=formulas((*TASKS, "item.price"), ("context.hour", "user.age")),
    columns=columns,
)
def test_compiled_agrees_with_reference(tree: Tree, columns: dict[str, list[float]]) -> None:
    rows = len(columns["click"])
    try:
        expected = judge(tree, columns, rows)
    except AmbiguousError:
        reject()
    compiled = compile_fusion(adhoc_fusion(render(tree)), TASKS, dict.fromkeys(FEATURES, "number"))
    task_scores = np.array([columns[task] for task in TASKS], np.float32).T
    features = {
        name: np.array(columns[name] if name.startswith("item.") else columns[name][0])
        for name in compiled.features_used
    }
    fused = compiled.evaluate(task_scores, {}, features)
    assert fused.shape == (rows,)
    assert fused.dtype == np.float64
    for score, (lowest, highest) in zip(fused.tolist(), expected, strict=True):
        assert agrees(score, lowest, highest), (render(tree), score, (lowest, highest))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fusions")


@settings(max_examples=max(EXAMPLES // 20, 50), deadline=None)
@given(
    tree=formulas(TASKS, ("w",), depth=3),
    shared=formulas(TASKS, ("w",), depth=2),
    columns=columns,
    w=st.floats(-10, 10),
)
def test_named_expressions_and_weights_mean_what_they_stand_for(
    directory: Path,
    tree: Tree,
    shared: Tree,
    columns: dict[str, list[float]],
    w: float,
) -> None:
    """Weights as columns and expressions written out, against the same through a file."""
    path = directory / "named.yaml"
    path.write_text(
        f"formula: shared + ({render(tree)})\n"
        f"expressions: {{shared: '{render(shared)}'}}\n"
        "weights: {w: {default: 1, minimum: -10, maximum: 10}}\n"
    )
    rows = len(columns["click"])
    whole = Tree("+", (shared, tree))
    try:
        expected = judge(whole, columns | {"w": [w] * rows}, rows)
    except AmbiguousError:
        reject()
    compiled = compile_fusion(load_fusions(directory)["named"], TASKS, {})
    task_scores = np.array([columns[task] for task in TASKS], np.float32).T
    fused = compiled.evaluate(task_scores, compiled.bind_weights({"w": w}))
    for score, (lowest, highest) in zip(fused.tolist(), expected, strict=True):
        assert agrees(score, lowest, highest), (render(whole), score, (lowest, highest))
