"""An independent reference for the fusion language: pure Python that judges a formula.

Shares no code with `service.fusion`: its own tree and its own arithmetic, one candidate at a time
in Python floats. Every value is an interval [lowest, highest] that must hold what the compiled
form computes: correctly rounded operators (+ - * / sqrt, comparisons) keep an interval that is one
number exact, others widen it by their rounding. Where rounding may decide a discontinuity (a
comparison, a rank, a division by an interval around 0) the case says so with `AmbiguousError`
instead of guessing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from itertools import product
from typing import Any, TypeAlias

from tests.properties.fusion_formulas import Tree

Interval: TypeAlias = tuple[float, float]
Value: TypeAlias = Any  # an Interval or a bool
NAN: Interval = (math.nan, math.nan)

RELATIVE = 4e-15  # about 18 units in the last place: functions that numpy rounds roughly
TINY = 4 * 5e-324


class AmbiguousError(Exception):
    """Rounding decides the outcome; neither answer is wrong."""


def judge(tree: Tree, columns: Mapping[str, Sequence[float]], rows: int) -> list[Interval]:
    """What each of the candidates may score. Raises AmbiguousError."""
    return [_interval(value) for value in _values(tree, columns, rows)]


def _values(tree: Tree, columns: Mapping[str, Sequence[float]], rows: int) -> list[Value]:
    if not tree.operands:
        if tree.text in columns:
            return [(value, value) for value in columns[tree.text]]
        if tree.text in ("true", "false"):
            return [tree.text == "true"] * rows
        return [(float(tree.text), float(tree.text))] * rows
    operands = [_values(operand, columns, rows) for operand in tree.operands]
    if tree.text in _STATISTICS:
        return _over_finite(_STATISTICS[tree.text], operands[0])
    if tree.text == "mean":
        finite = [x for x in operands[0] if _is_finite(x)]
        return [_mean(finite) if finite else NAN] * rows
    return [_OPERATORS[tree.text](*row) for row in zip(*operands, strict=True)]


def _interval(value: Value) -> Interval:
    assert isinstance(value, tuple)
    return value


def _widened(x: Interval, relative: float = RELATIVE, absolute: float = TINY) -> Interval:
    lowest, highest = x
    return (
        lowest - abs(lowest) * relative - absolute if math.isfinite(lowest) else lowest,
        highest + abs(highest) * relative + absolute if math.isfinite(highest) else highest,
    )


def _corners(function: Callable[..., float], *operands: Interval) -> Interval:
    """The range of a function that is monotone in each operand."""
    values = [function(*corner) for corner in product(*(sorted(set(o)) for o in operands))]
    undefined = [value for value in values if math.isnan(value)]
    if len(undefined) == len(values):
        return NAN
    if undefined:
        raise AmbiguousError
    return min(values), max(values)


def _inexact(function: Callable[..., float]) -> Callable[..., Interval]:
    return lambda *operands: _widened(_corners(function, *operands))


def _exact(function: Callable[..., float]) -> Callable[..., Interval]:
    return lambda *operands: _corners(function, *operands)


def _quotient(a: float, b: float) -> float:
    if b != 0 or math.isnan(a):
        return a / b if b != 0 else math.nan
    return math.nan if a == 0 else math.copysign(math.inf, a)


def _divide(a: Interval, b: Interval) -> Interval:
    if (b[0] <= 0 <= b[1] and b[0] != b[1]) or (b[0] == 0 and a[0] <= 0 <= a[1] and a[0] != a[1]):
        raise AmbiguousError
    return _corners(_quotient, a, b)


def _multiply(a: Interval, b: Interval) -> Interval:
    if any(math.isinf(x[0]) or math.isinf(x[1]) for x in (a, b)) and (
        a[0] < 0 < a[1] or b[0] < 0 < b[1]
    ):
        raise AmbiguousError  # 0 * inf may be inside
    return _corners(lambda x, y: x * y, a, b)


def _power_float(a: float, b: float) -> float:
    try:
        return math.pow(a, b)
    except OverflowError:
        return -math.inf if a < 0 and b % 2 == 1 else math.inf
    except ValueError:
        return math.inf if a == 0 else math.nan  # 0 to a negative, negative to a fraction


def _power(a: Interval, b: Interval) -> Interval:
    point = (a[0] == a[1] or math.isnan(a[0])) and (b[0] == b[1] or math.isnan(b[0]))
    # NaN as the exponent is a leap at the base 1, and any other exponent at bases up to 0.
    smooth = a[0] > 1 or a[1] < 1 if math.isnan(b[0]) else a[0] > 0
    if not point and not smooth:
        raise AmbiguousError
    return _widened(_corners(_power_float, a, b))


def _log(x: float) -> float:
    return math.log(x) if x > 0 else -math.inf if x == 0 else math.nan


def _log1p(x: float) -> float:
    return math.log1p(x) if x > -1 else -math.inf if x == -1 else math.nan


def _exp(x: float) -> float:
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


def _sigmoid(x: float) -> float:
    return 1 / (1 + _exp(-x))


def _logit_float(p: float) -> float:
    if not 0 <= p <= 1:
        return math.nan
    return math.inf if p == 1 else _log(p) - math.log1p(-p)


def _logit(p: Interval) -> Interval:
    if p[0] < 0 and p[1] > 1:
        raise AmbiguousError  # undefined at both ends, defined between
    return _widened(_corners(_logit_float, p), absolute=1e-15)


def _extreme(sign: int) -> Callable[..., Interval]:
    def extreme(*operands: Interval) -> Interval:
        if any(math.isnan(operand[0]) for operand in operands):
            return NAN
        choose = max if sign > 0 else min
        return choose(o[0] for o in operands), choose(o[1] for o in operands)

    return extreme


def _clip(x: Interval, lowest: Interval, highest: Interval) -> Interval:
    result: Interval = _extreme(-1)(_extreme(1)(x, lowest), highest)
    return result


def _less(a: Interval, b: Interval) -> bool:
    if math.isnan(a[0]) or math.isnan(b[0]):
        return False
    if a[1] < b[0] or b[1] < a[0] or a[0] == a[1] == b[0] == b[1]:
        return a[1] < b[0]
    raise AmbiguousError


def _equal(a: Interval, b: Interval) -> bool:
    undefined = math.isnan(a[0]) or math.isnan(b[0])
    return not undefined and not _less(a, b) and not _less(b, a)


_OPERATORS: dict[str, Callable[..., Value]] = {
    "+": _exact(lambda a, b: a + b),
    "-": _exact(lambda a, b: a - b),
    "*": _multiply,
    "/": _divide,
    "**": _power,
    "negate": lambda x: (-x[1], -x[0]),
    "<": _less,
    ">": lambda a, b: _less(b, a),
    "<=": lambda a, b: _less(a, b) or _equal(a, b),
    ">=": lambda a, b: _less(b, a) or _equal(a, b),
    "==": _equal,
    "!=": lambda a, b: not _equal(a, b),
    "and": lambda a, b: a and b,
    "or": lambda a, b: a or b,
    "not": lambda a: not a,
    "if": lambda condition, a, b: a if condition else b,
    "min": _extreme(-1),
    "max": _extreme(1),
    "clip": _clip,
    "abs": lambda x: (0.0 if x[0] <= 0 <= x[1] else min(map(abs, x)), max(map(abs, x))),
    "sqrt": _exact(lambda x: math.sqrt(x) if x >= 0 else math.nan),
    "log": _inexact(_log),
    "log1p": _inexact(_log1p),
    "exp": _inexact(_exp),
    "sigmoid": _inexact(_sigmoid),
    "logit": _logit,
}


# ---- across candidates


def _is_finite(x: Interval) -> bool:
    if math.isfinite(x[0]) != math.isfinite(x[1]) or x == (-math.inf, math.inf):
        raise AmbiguousError
    return math.isfinite(x[0])


def _over_finite(
    statistic: Callable[[list[Interval]], list[Interval]], values: list[Interval]
) -> list[Interval]:
    places = [place for place, x in enumerate(values) if _is_finite(x)]
    result = [NAN] * len(values)
    if places:
        computed = statistic([values[place] for place in places])
        for place, value in zip(places, computed, strict=True):
            result[place] = value
    return result


def _rank(values: list[Interval]) -> list[Interval]:
    ranks = [1.0 + sum(_less(x, other) for other in values) for x in values]
    return [(rank, rank) for rank in ranks]


def _percentile(values: list[Interval]) -> list[Interval]:
    if len(values) == 1:
        return [(0.5, 0.5)]
    shares = []
    for place, x in enumerate(values):
        others = values[:place] + values[place + 1 :]
        halves = sum(2 * _less(other, x) + _equal(other, x) for other in others)
        shares.append(float(Fraction(halves, 2 * len(others))))
    return [(share, share) for share in shares]


def _all_equal(values: list[Interval]) -> bool:
    first = values[0]
    return all(x == first and x[0] == x[1] for x in values)


def _minmax(values: list[Interval]) -> list[Interval]:
    if _all_equal(values):
        return [(0.5, 0.5)] * len(values)
    bottom = min(Fraction(x[0]) for x in values), min(Fraction(x[1]) for x in values)
    top = max(Fraction(x[0]) for x in values), max(Fraction(x[1]) for x in values)
    if top[0] <= bottom[1]:
        raise AmbiguousError
    longest, shortest = top[1] - bottom[0], top[0] - bottom[1]
    result = []
    for x in values:
        low = max(Fraction(x[0]) - bottom[1], Fraction(0)) / longest
        high = (Fraction(x[1]) - bottom[0]) / shortest
        result.append(_widened((float(low), float(min(high, Fraction(1))))))
    return result


def _mean(values: list[Interval]) -> Interval:
    count = len(values)
    rounding = max(abs(bound) for x in values for bound in x) * (count * 2.0**-50) + TINY
    low = float(sum(Fraction(x[0]) for x in values) / count)
    high = float(sum(Fraction(x[1]) for x in values) / count)
    return low - rounding, high + rounding


def _zscore(values: list[Interval]) -> list[Interval]:
    if _all_equal(values):
        return [(0.0, 0.0)] * len(values)
    count = len(values)
    largest = max(abs(Fraction(bound)) for x in values for bound in x)
    middle = [(Fraction(x[0]) + Fraction(x[1])) / 2 / largest for x in values]
    # No scaled value is farther from its middle than this, its own rounding included.
    error = float(max((Fraction(x[1]) - Fraction(x[0])) / largest for x in values)) + count * 1e-15
    mean = sum(middle) / count
    deviation = math.sqrt(sum((x - mean) ** 2 for x in middle) / count)
    if deviation < 1000 * error:
        raise AmbiguousError
    scores = [float(x - mean) / deviation for x in middle]
    slack = [8 * error / deviation * (1 + abs(score)) for score in scores]
    return [(score - s, score + s) for score, s in zip(scores, slack, strict=True)]


def _softmax(values: list[Interval]) -> list[Interval]:
    result = []
    for place, x in enumerate(values):
        others = values[:place] + values[place + 1 :]
        low = 1 / (1 + sum(_exp(other[1] - x[0]) for other in others))
        high = 1 / (1 + sum(_exp(other[0] - x[1]) for other in others))
        result.append(_widened((low, high), relative=1e-12, absolute=1e-307))
    return result


_STATISTICS = {
    "rank": _rank,
    "percentile": _percentile,
    "minmax": _minmax,
    "zscore": _zscore,
    "softmax": _softmax,
}
