"""Fuse stage: every operator of the language, what it takes and gives, and its numeric rule.

All numbers are float64. The rule under all rules: an undefined result is NaN, never a number
made up, and NaN stays NaN until the fused score, which then sorts last and is counted (see
`compile.ranking`). No operator raises or warns. Overflow is +inf or -inf, underflow is 0.

    a + b, a - b    IEEE 754: inf - inf = NaN
    a * b           IEEE 754: 0 * inf = NaN
    a / b           x / 0 = inf with the sign of x; 0 / 0 = inf / inf = NaN. No zero is negative
    a ** b          C99 pow: negative ** fraction = NaN, 0 ** negative = inf (no zero is negative);
                    anything ** 0 = 1 and 1 ** anything = 1, NaN included
    < <= > >= ==    with NaN: false. != with NaN: true. == and != compare two texts, too
    and or not      both sides are always computed
    if(c, a, b)     only the chosen value counts: if(b != 0, a / b, 0) is never NaN for finite a, b
    min(a, b, ...)  NaN if any is NaN; max too
    clip(x, lo, hi) min(max(x, lo), hi): hi if lo > hi; NaN if any is NaN
    abs(x)          exact
    sqrt(x)         x < 0 = NaN
    log(x)          log(0) = -inf, x < 0 = NaN
    log1p(x)        log1p(-1) = -inf, x < -1 = NaN
    exp(x)          above 709.78 = inf
    sigmoid(x)      1 / (1 + exp(-x)): 0 at -inf, 1 at inf, never overflows
    logit(p)        log(p / (1 - p)): -inf at 0, inf at 1, NaN outside 0..1. A saturated probability
                    therefore sorts last; write logit(clip(p, 1e-6, 1 - 1e-6)) to keep it.

Across the candidates of the request. A candidate whose x is NaN or infinite gets NaN and is left
out of the statistic, so that one bad candidate does not spoil the others.

    rank(x)         1 for the largest x; equal values share the best of their ranks (1, 2, 2, 4)
    percentile(x)   share of the other candidates below, equal ones counting half: 1 for the best,
                    0 for the worst, 0.5 where nothing tells candidates apart (all equal, or one)
    minmax(x)       (x - min) / (max - min); 0.5 where max = min. Never overflows
    zscore(x)       (x - mean) / standard deviation (of the population); 0 where the deviation is 0
    softmax(x)      exp(x - max) / sum of the same: sums to 1
    mean(x)         one number for the request; NaN if no candidate is finite. Never overflows
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Kind = Literal["number", "boolean", "text"]
Column: TypeAlias = NDArray[np.float64]  # [N]


@dataclass(frozen=True, slots=True)
class Operator:
    """How an operator is typed and computed.

    Args:
        apply: over numbers and arrays [N] alike, elementwise unless `across`.
        takes: the kind of each operand.
        gives: the kind of the result.
        variadic: takes two operands or more, folded from the left.
        across: looks at all candidates of the request at once, so its operand must be a value
            per candidate.
        gives_one: the result is one value per request, whatever the operand.
    """

    apply: Callable[..., Any]
    takes: tuple[Kind, ...]
    gives: Kind = "number"
    variadic: bool = False
    across: bool = False
    gives_one: bool = False


def _divide(a: Any, b: Any) -> Any:
    # Adding 0 makes -0.0 a 0.0: authors do not think of the sign of a zero, and numpy itself
    # leaves it open which of two zeros the minimum is.
    return np.divide(a, np.add(b, 0.0))


def _power(a: Any, b: Any) -> Any:
    a = np.add(a, 0.0)
    # For a single exponent of 0.5 numpy takes the square root instead, which differs from pow
    # at -inf: a weight of 0.5 would not mean what a column of 0.5 means.
    if np.ndim(b) == 0 and b == 0.5:
        return np.sqrt(np.where(np.equal(a, -np.inf), np.inf, a))
    return np.power(a, b)


def _clip(x: Any, lowest: Any, highest: Any) -> Any:
    return np.minimum(np.maximum(x, lowest), highest)


def _sigmoid(x: Any) -> Any:
    return np.divide(1.0, np.add(1.0, np.exp(np.negative(x))))


def _logit(p: Any) -> Any:
    return np.log(np.divide(p, np.subtract(1.0, p)))


def _over_finite(statistic: Callable[[Column], Column]) -> Callable[[Column], Column]:
    """Apply `statistic` to the finite values; the others become NaN."""

    @wraps(statistic)
    def over_finite(x: Column) -> Column:
        finite = np.isfinite(x)
        if finite.all():
            return statistic(x)
        result = np.full(x.shape, np.nan)
        if finite.any():
            result[finite] = statistic(x[finite])
        return result

    return over_finite


@_over_finite
def _rank(x: Column) -> Column:
    better = np.searchsorted(np.sort(-x), -x, side="left")
    return better.astype(np.float64) + 1.0


@_over_finite
def _percentile(x: Column) -> Column:
    if len(x) == 1:
        return np.full(1, 0.5)
    ordered = np.sort(x)
    below = np.searchsorted(ordered, x, side="left")
    up_to = np.searchsorted(ordered, x, side="right")
    return (below + up_to - 1) / (2.0 * (len(x) - 1))


@_over_finite
def _minmax(x: Column) -> Column:
    lowest, highest = float(x.min()), float(x.max())
    if lowest == highest:
        return np.full(x.shape, 0.5)
    if highest - lowest == np.inf:
        x, lowest, highest = x / 2, lowest / 2, highest / 2
    return (x - lowest) / (highest - lowest)


@_over_finite
def _zscore(x: Column) -> Column:
    # Divided by the largest magnitude first: no square can overflow or vanish, and equal values
    # become exactly 1 or -1, so that their deviation is exactly 0.
    largest = float(np.abs(x).max())
    if largest == 0:
        return np.zeros(x.shape)
    scaled = x / largest
    centred = scaled - scaled.mean()
    deviation = float(np.sqrt(np.mean(centred * centred)))
    return centred / deviation if deviation > 0 else np.zeros(x.shape)


@_over_finite
def _softmax(x: Column) -> Column:
    raised = np.exp(x - float(x.max()))
    return raised / float(raised.sum())


def mean(x: Column) -> float:
    """Mean of the finite values of x [N] float64, NaN if there are none; never overflows."""
    finite = x[np.isfinite(x)]
    if not len(finite):
        return float("nan")
    largest = np.abs(finite).max()
    return float(np.mean(finite / largest) * largest) if largest > 0 else 0.0


_NUMBER: tuple[Kind, ...] = ("number",)
_NUMBERS: tuple[Kind, ...] = ("number", "number")
_TEXTS: tuple[Kind, ...] = ("text", "text")
_BOOLEANS: tuple[Kind, ...] = ("boolean", "boolean")

# A name with a space or a symbol in it cannot be written as a function call.
OPERATORS: dict[str, Operator] = {
    "+": Operator(np.add, _NUMBERS),
    "-": Operator(np.subtract, _NUMBERS),
    "*": Operator(np.multiply, _NUMBERS),
    "/": Operator(_divide, _NUMBERS),
    "**": Operator(_power, _NUMBERS),
    "unary -": Operator(np.negative, _NUMBER),
    "<": Operator(np.less, _NUMBERS, "boolean"),
    "<=": Operator(np.less_equal, _NUMBERS, "boolean"),
    ">": Operator(np.greater, _NUMBERS, "boolean"),
    ">=": Operator(np.greater_equal, _NUMBERS, "boolean"),
    "==": Operator(np.equal, _NUMBERS, "boolean"),
    "!=": Operator(np.not_equal, _NUMBERS, "boolean"),
    "text ==": Operator(np.equal, _TEXTS, "boolean"),
    "text !=": Operator(np.not_equal, _TEXTS, "boolean"),
    "and": Operator(np.logical_and, _BOOLEANS, "boolean"),
    "or": Operator(np.logical_or, _BOOLEANS, "boolean"),
    "not": Operator(np.logical_not, ("boolean",), "boolean"),
    "if": Operator(np.where, ("boolean", "number", "number")),
    "min": Operator(np.minimum, _NUMBERS, variadic=True),
    "max": Operator(np.maximum, _NUMBERS, variadic=True),
    "clip": Operator(_clip, ("number", "number", "number")),
    "abs": Operator(np.abs, _NUMBER),
    "sqrt": Operator(np.sqrt, _NUMBER),
    "log": Operator(np.log, _NUMBER),
    "log1p": Operator(np.log1p, _NUMBER),
    "exp": Operator(np.exp, _NUMBER),
    "sigmoid": Operator(_sigmoid, _NUMBER),
    "logit": Operator(_logit, _NUMBER),
    "rank": Operator(_rank, _NUMBER, across=True),
    "percentile": Operator(_percentile, _NUMBER, across=True),
    "minmax": Operator(_minmax, _NUMBER, across=True),
    "zscore": Operator(_zscore, _NUMBER, across=True),
    "softmax": Operator(_softmax, _NUMBER, across=True),
    "mean": Operator(mean, _NUMBER, across=True, gives_one=True),
}
