"""The check that chaos answers go through: it must see what it is there to see."""

from __future__ import annotations

from typing import Any

import pytest

from loadtest.chaos.driver import complaint_of

USER, IDS, VALUES = 7, [3, 1, 2], {0.0, 1.0}


def answer(degraded: Any = None, **columns: list[float]) -> dict[str, Any]:
    """A right answer, but for what is given."""
    tasks = {"user_number": [7.0] * 3, "item_number": [3.0, 2.0, 1.0], "value": [0.0, 1.0, 1.0]}
    return {"ids": [3, 2, 1], "tasks": tasks | columns, "degraded": degraded}


def counts(entity: str, **kinds: int) -> Any:
    return {"features": {entity: {"missing": 0, "stale": 0, "defaulted": 0} | kinds}, "reasons": []}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (answer(), ""),
        (answer() | {"ids": [3, 2, 4]}, "other candidates"),
        (answer(user_number=[8.0] * 3), "another id's row"),
        (answer(item_number=[3.0, 1.0, 2.0]), "another id's row"),
        (answer(user_number=[-1.0] * 3), "a user's default, and no word of it"),
        (answer(counts("user", defaulted=1), user_number=[-1.0] * 3), ""),
        (answer(item_number=[3.0, -1.0, 1.0]), "another count"),
        (answer(counts("item", defaulted=2), item_number=[3.0, -1.0, 1.0]), "another count"),
        (answer(counts("item", defaulted=1), item_number=[3.0, -1.0, 1.0], value=[0, -1, 0]), ""),
        (answer(value=[5.0, 1.0, 1.0]), "an old value"),
        (answer(counts("item", stale=1), value=[5.0, 1.0, 1.0]), ""),
    ],
)
def test_what_is_wrong_is_said(given: dict[str, Any], says: str) -> None:
    complaint = complaint_of(given, USER, IDS, VALUES)
    assert says in complaint
    assert bool(says) == bool(complaint)
