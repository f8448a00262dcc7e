"""What fusing costs beside the same in numpy by hand: `python -m tests.properties.fusion_cost`.

A formula of 20 operators over 3 tasks and 1,000 candidates, both in turn in one process; the best
of many rounds counts, so that whatever else the machine does stays out of it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np

from service.fusion.compile import compile_fusion
from service.fusion.formula import adhoc_fusion
from tests.published import Array

CANDIDATES, ROUNDS, REPEATS = 1000, 300, 5
MOST = 3.0
FORMULA = (
    "if(click > 0.1, click, click / 2) ** 0.6 * (1 + 2 * like) ** 1.2 "
    "* log1p(max(watch, 0)) + 0.3 * percentile(watch) - 0.1 * abs(like - mean(like)) "
    "- click"
)


def by_hand(scores: Array) -> Array:
    """The same formula as a person would write it in numpy, float64 as the service has it."""
    click, like, watch = np.array(scores.T, np.float64, order="C")
    value = np.where(click > 0.1, click, click / 2) ** 0.6 * (1 + 2 * like) ** 1.2
    ordered = np.sort(watch)
    places = np.searchsorted(ordered, watch, "left") + np.searchsorted(ordered, watch, "right")
    value = value * np.log1p(np.maximum(watch, 0)) + 0.3 * (places - 1) / (2 * (len(watch) - 1))
    result: Array = value - 0.1 * np.abs(like - like.mean()) - click
    return result


def measured() -> tuple[int, float, float]:
    """Operators of the formula; seconds by hand and compiled."""
    scores = np.random.default_rng(0).uniform(0.01, 1, (CANDIDATES, 3)).astype(np.float32)
    compiled = compile_fusion(adhoc_fusion(FORMULA), ("click", "like", "watch"), {})
    np.testing.assert_allclose(compiled.evaluate(scores, {}), by_hand(scores), rtol=1e-12)

    def fused() -> object:
        return compiled.evaluate(scores, {})

    contestants: tuple[Callable[[], object], ...] = (lambda: by_hand(scores), fused)
    best = [float("inf")] * 2
    for _ in range(ROUNDS):
        for place, run in enumerate(contestants):
            started = time.perf_counter()
            for _ in range(REPEATS):
                run()
            best[place] = min(best[place], (time.perf_counter() - started) / REPEATS)
    return len(compiled.program.steps), best[0], best[1]


def main() -> int:
    """Print the figures; 1 if fusing costs more than it may."""
    operators, hand, fused = measured()
    print(f"{operators} operators, 3 tasks, {CANDIDATES} candidates: by hand {hand * 1e6:.0f} us,")
    print(f"compiled {fused * 1e6:.0f} us: {fused / hand:.2f} times, at most {MOST:g} are allowed")
    return int(fused > MOST * hand)


if __name__ == "__main__":
    sys.exit(main())
