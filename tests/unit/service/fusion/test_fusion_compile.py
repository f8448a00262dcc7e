"""Names, types and bounds that are checked at load; then evaluation and order."""

from __future__ import annotations

import math

import numpy as np
import pytest

from service.fusion.compile import CompiledFusion, compile_fusion, ranking
from service.fusion.errors import FusionError
from service.fusion.formula import Fusion, FusionFile, Weight, adhoc_fusion
from service.fusion.program import MAX_OPERATORS

TASKS = ("click", "like", "watch")
FEATURES = {
    "item.price": "number",
    "item.brand": "category",
    "user.age": "number",
    "context.hour": "number",
}
SCORES = np.array([[0.5, 0.1, 3], [0.2, 0.9, 0.25], [0.8, 0.4, 60]], np.float32)


def compiled(formula: str) -> CompiledFusion:
    return compile_fusion(adhoc_fusion(formula), TASKS, FEATURES)


def weighted(formula: str, **weights: Weight) -> Fusion:
    inline = adhoc_fusion(formula)
    file = FusionFile(formula=formula, weights=weights)
    return Fusion("weighted", inline.version, file, inline.formula, {})


@pytest.mark.parametrize(
    ("formula", "message", "marked"),
    [
        ("like * clik ** 0.5", "unknown name 'clik'; did you mean 'click'?", "clik"),
        ("item.prise * 2", "unknown name 'item.prise'; did you mean 'item.price'?",
         "item.prise"),
        ("click * zzz", "unknown name 'zzz'", "zzz"),
        ("click * sigmod(like)", "unknown function 'sigmod'; did you mean 'sigmoid'?", "sigmod"),
        ("click(like)", "unknown function 'click'; did you mean 'clip'?", "click"),
        ("like + rank", "'rank' is a function: write rank(...)", "rank"),
        ("click + item.brand", "'item.brand' is a category feature; only numbers are usable",
         "item.brand"),
        ("click < (like > 1)", "'<' takes a number here, this is a boolean", "like > 1"),
        ("2 * (click > 1)", "'*' takes a number here, this is a boolean", "click > 1"),
        ("click < like < watch", "'<' takes a number here, this is a boolean", "click < like"),
        ("if(click, 1, 2)", "'if' takes a boolean here, this is a number", "click"),
        ("if(true, click, like > 1)", "'if' takes a number here, this is a boolean", "like > 1"),
        ("not click", "'not' takes a boolean here, this is a number", "click"),
        ("-(click > 1)", "'-' takes a number here, this is a boolean", "click > 1"),
        ("clip(click)", "'clip' takes 3 operands, not 1", "clip(click)"),
        ("max(click)", "'max' takes 2 or more operands, not 1", "max(click)"),
        ("log(click, 2)", "'log' takes 1 operands, not 2", "log(click, 2)"),
        ("click * rank(user.age)", "'rank' compares candidates, this is one value for the whole "
         "request", "user.age"),
        ("rank(mean(click))", "'rank' compares candidates, this is one value for the whole request",
         "mean(click)"),
        ("click > 0.5", "the formula must give a number, this is a boolean", "click > 0.5"),
        ("1 + user.age", "the formula gives every candidate the same score", "1 + user.age"),
    ],
)  # fmt: skip
def test_refused_at_load(formula: str, message: str, marked: str) -> None:
    with pytest.raises(FusionError) as caught:
        compiled(formula)
    assert caught.value.message == message
    column = formula.index(marked) + 1
    carets = " " * (column - 1) + "^" * len(marked)
    assert str(caught.value) == f"inline:1:{column}: {message}\n    {formula}\n    {carets}"


def test_a_bucketised_feature_is_the_number_that_it_was() -> None:
    program = compile_fusion(
        adhoc_fusion("click + context.hour"), TASKS, {"context.hour": "bucketised"}
    )
    fused = program.evaluate(SCORES, {}, {"context.hour": np.array([21.5])})
    np.testing.assert_array_equal(fused, SCORES[:, 0].astype(np.float64) + 21.5)


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ('click * "a"', "'*' takes a number here, this is a text"),
        ('click == "a"', "'==' takes a text here, this is a number"),
        ('"a"', "the formula must give a number, this is a text"),
        ('if("a" == "b", click, like) and true', "'and' takes a boolean here, this is a number"),
    ],
)
def test_texts_are_of_a_type_of_their_own(formula: str, message: str) -> None:
    with pytest.raises(FusionError) as caught:
        compiled(formula)
    assert caught.value.message == message
    fused = compiled('if("a" == "a" and not ("a" != \'a\'), click, like)').evaluate(SCORES, {})
    np.testing.assert_array_equal(fused, SCORES[:, 0].astype(np.float64))


def test_a_name_with_two_meanings_is_refused() -> None:
    fusion = weighted("click + like", click=Weight(default=1, minimum=0, maximum=2))
    with pytest.raises(FusionError, match="'click' is a task and a weight"):
        compile_fusion(fusion, TASKS, {})


def test_the_number_of_operators_is_bounded() -> None:
    compiled("+".join(["click"] * (MAX_OPERATORS + 1)))
    with pytest.raises(FusionError, match="more than 512 operators"):
        compiled("+".join(["click"] * (MAX_OPERATORS + 2)))
    with pytest.raises(FusionError, match="more than 512 operators"):
        compiled("click * (" + "+".join(["1"] * (MAX_OPERATORS + 2)) + ")")


def test_constants_are_folded_and_equal_parts_merged() -> None:
    program = compiled("(1 + 2 * 3) * log(click) + log(click) ** (1 / 2)").program
    assert len(program.steps) == 4  # log, *, **, +
    assert {7.0, 0.5} <= set(program.slots)


def test_truth_and_numbers_are_not_merged() -> None:
    fused = compiled("if(2 > 1, click * 1, 0 * like) + 1").evaluate(SCORES, {})
    np.testing.assert_array_equal(fused, SCORES[:, 0].astype(np.float64) + 1)


def test_evaluate() -> None:
    formula = "click ** 0.6 * (1 + 2 * like) ** 1.2 * log1p(watch) + context.hour * item.price"
    fusion = compiled(formula)
    assert fusion.tasks_used == TASKS
    assert fusion.features_used == ("context.hour", "item.price")
    price, hour = np.array([1.0, 2.0, 0.5], np.float32), np.array(0.25)
    click, like, watch = SCORES.T.astype(np.float64)
    expected = click**0.6 * (1 + 2 * like) ** 1.2 * np.log1p(watch) + 0.25 * price
    fused = fusion.evaluate(SCORES, {}, {"item.price": price, "context.hour": hour})
    np.testing.assert_allclose(fused, expected, rtol=1e-14)
    assert fused.dtype == np.float64


def test_evaluate_leaves_its_inputs_alone() -> None:
    price = np.array([3.0, 1.0, 2.0])
    fused = compiled("item.price").evaluate(SCORES, {}, {"item.price": price})
    fused[:] = 0
    np.testing.assert_array_equal(price, [3, 1, 2])
    compiled("click").evaluate(SCORES.astype(np.float64), {})[:] = 0
    assert SCORES[0, 0] == 0.5


def test_evaluate_refuses_shapes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="2 columns of task scores for 3 tasks"):
        compiled("click").evaluate(SCORES[:, :2], {})
    with pytest.raises(ValueError, match="reshape"):
        compiled("click * item.price").evaluate(SCORES, {}, {"item.price": np.ones(2)})
    with pytest.raises(KeyError, match=r"item\.price"):
        compiled("click * item.price").evaluate(SCORES, {})


def test_no_candidates() -> None:
    assert compiled("rank(click) * mean(like)").evaluate(SCORES[:0], {}).shape == (0,)


def test_weights() -> None:
    fusion = weighted(
        "click * w + like * fixed",
        w=Weight(default=0.5, minimum=0, maximum=2),
        fixed=Weight(default=3, minimum=3, maximum=3),
    )
    program = compile_fusion(fusion, TASKS, {})
    assert program.bind_weights({}) == {"w": 0.5, "fixed": 3}
    weights = program.bind_weights({"w": 2})
    click, like, _ = SCORES.T.astype(np.float64)
    np.testing.assert_array_equal(program.evaluate(SCORES, weights), click * 2 + like * 3)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"w": 2.01}, "weight 'w' must be within 0 .. 2, not 2.01\n    w: 2.01\n       ^^^^"),
        ({"w": -1}, "weight 'w' must be within 0 .. 2, not -1"),
        ({"w": math.nan}, "weight 'w' must be within 0 .. 2, not nan"),
        ({"w": math.inf}, "weight 'w' must be within 0 .. 2, not inf"),
        ({"w_": 1}, "unknown weight 'w_'; did you mean 'w'?\n    w_\n    ^^"),
        ({"": 1}, "unknown weight ''\n    \n    ^"),
        ({"a\nb": 1}, "unknown weight 'a\nb'\n    a\n    ^"),
    ],
)
def test_overrides_that_are_refused(overrides: dict[str, float], message: str) -> None:
    fusion = weighted("click * w", w=Weight(default=0.5, minimum=0, maximum=2))
    with pytest.raises(FusionError) as caught:
        compile_fusion(fusion, TASKS, {}).bind_weights(overrides)
    assert str(caught.value).startswith(f"weights:1:{caught.value.column}: {message}")


def test_ranking_keeps_ties_in_order_and_puts_the_undefined_last() -> None:
    nan, inf = math.nan, math.inf
    order, undefined = ranking(np.array([nan, 0.5, inf, 0.7, 0.5, -inf, -1.7e308, 0.7]))
    assert order.tolist() == [3, 7, 1, 4, 6, 0, 2, 5]
    assert undefined == 3
    order, undefined = ranking(np.empty(0))
    assert order.tolist() == []
    assert undefined == 0
