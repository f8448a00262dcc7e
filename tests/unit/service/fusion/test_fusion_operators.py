"""Every operator's numeric rule, as its table says it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from service.fusion.compile import compile_fusion
from service.fusion.formula import adhoc_fusion
from service.fusion.language import KEYWORDS
from service.fusion.operators import OPERATORS
from service.fusion.operators import __doc__ as TABLE

NAN, INF = math.nan, math.inf


def evaluate(formula: str, *columns: list[float]) -> NDArray[np.float64]:
    """The fused scores of a formula over tasks x, y, z."""
    compiled = compile_fusion(adhoc_fusion(formula), ("x", "y", "z")[: len(columns)], {})
    return compiled.evaluate(np.array(columns).T, {})


@pytest.mark.parametrize(
    ("formula", "x", "y", "expected"),
    [
        ("x + y", INF, -INF, NAN),
        ("x * y", 0, INF, NAN),
        ("x * y", 1e300, -1e300, -INF),
        ("x / y", 0, 0, NAN),
        ("x / y", 3, 0, INF),
        ("x / y", -3, 0, -INF),
        ("x / y", 3, -0.0, INF),
        ("x / y", INF, INF, NAN),
        ("x ** y", -8, 1 / 3, NAN),
        ("x ** y", -2, 3, -8),
        ("x ** y", -INF, 0.5, INF),
        ("x ** 0.5", -INF, 0, INF),
        ("x ** 0.5 + y * (-1 / 0) ** 0.5", 0, 1, INF),
        ("x ** y", -0.0, -1, INF),
        ("x / min(-y, y)", 3, 0, INF),
        ("x / -y ** 2", -3, 0, -INF),
        ("x ** 0.5", -4, 0, NAN),
        ("x ** 0.5", 4, 0, 2),
        ("x ** y", 0, -1, INF),
        ("x ** y", NAN, 0, 1),
        ("x ** y", 1, NAN, 1),
        ("x ** y", 1e300, 2, INF),
        ("-x + 0 * y", INF, 0, -INF),
        ("if(x < y, 1, x * 0 + 2)", NAN, 1, NAN),
        ("if(x == x, y, 5)", NAN, 1, 5),
        ("if(x != x, y, 5)", NAN, 1, 1),
        ("if(y != 0, x / y, 7)", 3, 0, 7),
        ("if(x > 0 and y > 0, 1, 0)", 1, 1, 1),
        ("if(x > 0 or y > 0, 1, 0)", -1, 1, 1),
        ("if(not x > 0, 1, y)", -1, 0, 1),
        ("min(x, y)", NAN, 1, NAN),
        ("max(x, y, 3)", NAN, 1, NAN),
        ("max(x, y, 3)", 2, 1, 3),
        ("clip(x, 0, 1)", 7, 0, 1),
        ("clip(x, 2, 1)", 1.5, 0, 1),
        ("clip(x, 0, y)", 1, NAN, NAN),
        ("abs(x)", -INF, 0, INF),
        ("sqrt(x)", -1, 0, NAN),
        ("log(x)", 0, 0, -INF),
        ("log(x)", -1, 0, NAN),
        ("log1p(x)", -1, 0, -INF),
        ("log1p(x)", -2, 0, NAN),
        ("exp(x)", 710, 0, INF),
        ("exp(x)", -1000, 0, 0),
        ("sigmoid(x)", -INF, 0, 0),
        ("sigmoid(x)", -1000, 0, 0),
        ("sigmoid(x)", INF, 0, 1),
        ("sigmoid(x)", NAN, 0, NAN),
        ("logit(x)", 0, 0, -INF),
        ("logit(x)", 1, 0, INF),
        ("logit(x)", 1.1, 0, NAN),
        ("logit(x)", -0.1, 0, NAN),
        ("logit(x)", 0.5, 0, 0),
    ],
)
def test_each_candidate(formula: str, x: float, y: float, expected: float) -> None:
    np.testing.assert_array_equal(evaluate(formula, [x], [y]), [expected])


@pytest.mark.parametrize(
    ("formula", "x", "expected"),
    [
        ("rank(x)", [0.1, 0.9, 0.5, 0.5, 0.2], [5, 1, 2, 2, 4]),
        ("rank(x)", [NAN, 2, INF, 3], [NAN, 2, NAN, 1]),
        ("percentile(x)", [3, 1, 2], [1, 0, 0.5]),
        ("percentile(x)", [2, 1, 2], [0.75, 0, 0.75]),
        ("percentile(x)", [4, 4, 4], [0.5, 0.5, 0.5]),
        ("percentile(x)", [4], [0.5]),
        ("percentile(x)", [NAN, 4, -INF, 5], [NAN, 0, NAN, 1]),
        ("minmax(x)", [2, 4, 3], [0, 1, 0.5]),
        ("minmax(x)", [0.1, 0.1, 0.1], [0.5, 0.5, 0.5]),
        ("minmax(x)", [-1.7e308, 1.7e308, 0], [0, 1, 0.5]),
        ("minmax(x)", [0, INF, 8], [0, NAN, 1]),
        ("zscore(x)", [0, 3], [-1, 1]),
        ("zscore(x)", [0.1, 0.1, 0.1], [0, 0, 0]),
        ("zscore(x)", [0, 0], [0, 0]),
        ("zscore(x)", [1.7e308, -1.7e308, NAN], [1, -1, NAN]),
        ("zscore(x)", [5e-324, 0], [1, -1]),
        ("softmax(x)", [1000, 1000], [0.5, 0.5]),
        ("softmax(x)", [0, -1000, NAN, INF], [1, 0, NAN, NAN]),
        ("mean(x) + 0 * x", [1, 2, 6], [3, 3, 3]),
        ("mean(x) + 0 * y", [1, NAN, INF, 3], [2, 2, 2, 2]),
        ("mean(x) + 0 * y", [NAN, INF], [NAN, NAN]),
        ("mean(x) + 0 * y", [1.7e308, 1.7e308], [1.7e308, 1.7e308]),
        ("mean(x) + 0 * y", [0, 0], [0, 0]),
        ("rank(x)", [NAN, NAN], [NAN, NAN]),
    ],
)
def test_across_candidates(formula: str, x: list[float], expected: list[float]) -> None:
    np.testing.assert_array_equal(evaluate(formula, x, [0.0] * len(x)), expected)


def test_softmax_sums_to_one() -> None:
    assert evaluate("softmax(x)", [0.1, 5, -3, 80]).sum() == pytest.approx(1, rel=1e-15)


def test_a_bad_candidate_changes_nothing_for_the_others() -> None:
    x = [0.3, 0.9, 0.4, 0.1]
    for name in ("rank", "percentile", "minmax", "zscore", "softmax"):
        alone, beside = evaluate(f"{name}(x)", x), evaluate(f"{name}(x)", [*x, NAN])
        np.testing.assert_array_equal(alone, beside[:4])


@pytest.mark.parametrize("name", OPERATORS)
def test_the_table_has_every_rule(name: str) -> None:
    written = name if name in KEYWORDS or not name.isidentifier() else f"{name}("
    assert written.removeprefix("unary ").removeprefix("text ") in (TABLE or "")
