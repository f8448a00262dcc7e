"""Contributions as a Shapley value must have them, and ranks without a task."""

from __future__ import annotations

import numpy as np
import pytest

from service.fusion.compile import CompiledFusion, compile_fusion, ranking
from service.fusion.errors import FusionError
from service.fusion.explain import contributions, ranks_without
from service.fusion.formula import adhoc_fusion

TASKS = ("click", "like", "share", "watch")
RNG = np.random.default_rng(6)
SCORES = RNG.random((50, 4), dtype=np.float32)


def compiled(formula: str) -> CompiledFusion:
    return compile_fusion(adhoc_fusion(formula), TASKS, {"item.price": "number"})


@pytest.mark.parametrize(
    "formula",
    [
        "click ** 0.6 * (1 + 2 * like) ** 1.2 * log1p(watch)",
        "rank(click) + zscore(like) * if(share > 0.5, 1, watch)",
        "max(click, like, share, watch)",
        "click",
    ],
)
def test_they_add_up_to_the_difference_from_the_baseline(formula: str) -> None:
    fusion = compiled(formula)
    baseline, shares = contributions(fusion, SCORES, {})
    fused = fusion.evaluate(SCORES, {})
    np.testing.assert_allclose(shares.sum(axis=1), fused - baseline, rtol=1e-12, atol=1e-12)


def test_the_baseline_is_every_task_at_its_mean() -> None:
    price = RNG.random(50)
    baseline, _ = contributions(
        compiled("click * like + item.price"), SCORES, {}, {"item.price": price}
    )
    means = SCORES.astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(baseline, means[0] * means[1] + price, rtol=1e-12)


def test_a_sum_gives_each_task_its_own_difference() -> None:
    _, shares = contributions(compiled("2 * click + 3 * watch"), SCORES, {})
    scores = SCORES.astype(np.float64)
    off_mean = scores - scores.mean(axis=0)
    np.testing.assert_allclose(shares[:, 0], 2 * off_mean[:, 0], atol=1e-14)
    np.testing.assert_allclose(shares[:, 3], 3 * off_mean[:, 3], atol=1e-14)


def test_a_product_of_two_by_hand() -> None:
    scores = np.array([[1, 2], [3, 6]], np.float32)
    fusion = compile_fusion(adhoc_fusion("a * b"), ("a", "b"), {})
    baseline, shares = contributions(fusion, scores, {})
    assert baseline.tolist() == [8, 8]  # means 2 and 4
    # a of the first: ((1*4 - 2*4) + (1*2 - 2*2)) / 2 = -3; b: ((2*2 - 2*4) + (1*2 - 1*4)) / 2 = -3
    assert shares.tolist() == [[-3, -3], [5, 5]]


def test_a_task_without_effect_contributes_nothing() -> None:
    _, shares = contributions(compiled("click * watch + 0 * like"), SCORES, {})
    assert not shares[:, [1, 2]].any()


def test_tasks_that_act_alike_contribute_alike() -> None:
    scores = SCORES.copy()
    scores[:, 1] = scores[:, 0]
    _, shares = contributions(
        compiled("(click + 1) * (like + 1) ** watch ** 0 * watch"), scores, {}
    )
    np.testing.assert_allclose(shares[:, 0], shares[:, 1], rtol=1e-12)


def test_what_is_undefined_is_said_and_harms_no_other() -> None:
    scores = SCORES.copy()
    scores[0, 0] = np.nan
    scores[1, 1] = np.inf
    fusion = compiled("click * like")
    _, shares = contributions(fusion, scores, {})
    assert np.isnan(shares[:2]).all()
    assert np.isfinite(shares[2:]).all()


def test_the_number_of_tasks_is_bounded() -> None:
    tasks = [f"t{n}" for n in range(12)]
    scores = RNG.random((3, 12), dtype=np.float32)
    many = compile_fusion(adhoc_fusion(" + ".join(tasks[:11])), tasks, {})
    with pytest.raises(FusionError, match="for 10 tasks at most, not 11"):
        contributions(many, scores, {})
    few = compile_fusion(adhoc_fusion(" * ".join(tasks[2:12])), tasks, {})
    baseline, shares = contributions(few, scores, {})
    difference = few.evaluate(scores, {}) - baseline
    np.testing.assert_allclose(shares.sum(axis=1), difference, rtol=1e-9, atol=1e-12)


def test_ranks_without_a_task() -> None:
    scores = np.array([[0.9, 0.1, 0, 0], [0.1, 0.5, 0, 0], [0.5, 0.3, 0, 0]], np.float32)
    fusion = compiled("click + like")
    ranks = ranks_without(fusion, scores, {})
    assert ranks[:, 0].tolist() == [3, 1, 2]  # by like alone
    assert ranks[:, 1].tolist() == [1, 3, 2]  # by click alone
    order, _ = ranking(fusion.evaluate(scores, {}))
    assert ranks[order, 2].tolist() == [1, 2, 3]  # share is not used
