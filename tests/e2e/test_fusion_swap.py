"""Formulas change while requests run: every answer is of one formula, the one that it names."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from service.fusion.compile import compile_fusion
from service.fusion.formula import adhoc_fusion
from tests.conftest import Serve
from tests.e2e.asking import CONTEXT, best_first, ids_of, scores_of, tasks_of
from tests.e2e.test_fusion_files import write
from tests.e2e.test_swap import Load
from tests.published import TASKS, Array, ModelsDirectory
from tests.servers import eventually

ANSWERS = 1000
FORMULAS = (
    "click * (1 + like)",
    "-click",
    "like ** 2 - click",
    "log1p(watch_seconds) * rank(like)",
    "if(like > mean(like), click, -watch_seconds)",
)
BROKEN = "formula: click * ("


def reference(formula: int, scores: Array) -> Array:
    """The formulas once more, by hand."""
    click, like, watch_seconds = scores.astype(np.float64).T
    rank = 1 + (like[:, None] < like[None, :]).sum(axis=1)
    results: list[Array] = [
        click * (1 + like),
        -click,
        like**2 - click,
        np.log1p(watch_seconds) * rank,
        np.where(like > like.mean(), click, -watch_seconds),
    ]
    return results[formula]


def version_of(formula: str) -> str:
    return compile_fusion(adhoc_fusion(formula), TASKS, {}).version


def test_a_thousand_answers_agree_with_the_formula_that_they_name(
    models_dir: ModelsDirectory, serve: Serve
) -> None:
    texts = itertools.cycle([*(f"formula: {each}" for each in FORMULAS), BROKEN])
    write(models_dir.fusion, next(texts))
    service = serve(models_dir.path, poll_interval_ms=20)
    service.allow_in_log("fusion default refused")
    expected = models_dir.expected(1)
    load = Load(service.url, expected.ids("user")[:8], expected.ids("item")[:40])
    with load.running():
        while len(load.asked) < ANSWERS:
            change(models_dir.fusion, next(texts), load)

    assert {each.status for each in load.asked} == {200}
    numbers = {version_of(formula): number for number, formula in enumerate(FORMULAS)}
    right = {user: expected.scores(user, load.items, CONTEXT) for user in load.users}
    place = {item: row for row, item in enumerate(load.items)}
    seen = set()
    for each in load.asked[:ANSWERS]:
        number = numbers[each.answer["fusion"]["version"]]
        seen.add(number)
        rows = [place[item] for item in ids_of(each.answer)]
        np.testing.assert_allclose(
            tasks_of(each.answer), right[each.user][rows], rtol=1e-5, atol=1e-5
        )
        check_fused(each.answer, number, place)
    assert seen == set(range(len(FORMULAS)))


def change(file: Path, text: str, load: Load) -> None:
    """Replace the formula, and let some requests be answered meanwhile."""
    write(file, text)
    answered = len(load.asked) + 40
    eventually(lambda: len(load.asked) >= answered)


def check_fused(answer: Any, number: int, place: dict[str, int]) -> None:
    """Scores and order must be those of one formula, to the last digit that JSON carries."""
    in_request = np.argsort([place[item] for item in ids_of(answer)])
    scores, wanted = scores_of(answer)[in_request], tasks_of(answer)[in_request]
    computed = reference(number, wanted.astype(np.float32))
    np.testing.assert_allclose(scores, computed, rtol=1e-9, atol=1e-12)
    order = [list(place)[row] for row in best_first(computed)]
    assert ids_of(answer) == order
