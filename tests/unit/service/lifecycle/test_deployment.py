"""The deployment as a value: what each change makes of it, and what it does not allow."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from service.lifecycle.deployment import (
    Action,
    Canary,
    Deployment,
    DeploymentInvalid,
    Roles,
    Shadow,
    deploy,
    pin,
    promote,
    rollback,
    start_canary,
    start_shadow,
)

PUBLISHED = [1, 2, 3, 4]


def after(now: Deployment, action: Action, roles: Roles) -> Deployment:
    return now.changed(roles, action, "me", "", "2026-01-01T00:00:00+00:00", None)


def deployed(*stables: int) -> Deployment:
    """Versions made stable one after the other."""
    now = Deployment()
    for version in stables:
        now = after(now, "deploy", deploy(now.roles, version, PUBLISHED))
    return now


def rolled_back(now: Deployment, published: Sequence[int] = PUBLISHED) -> Deployment:
    return after(now, "rollback", rollback(now, published))


def test_without_a_file_the_newest_is_stable() -> None:
    assert Deployment().roles == Roles(stable="newest")


def test_a_canary_fixes_what_was_newest_and_becomes_stable_when_promoted() -> None:
    roles = start_canary(Roles(), Canary(version=4, percent=10), PUBLISHED)
    assert (roles.stable, roles.canary) == (3, Canary(version=4, percent=10))
    assert promote(roles) == Roles(stable=4)


def test_rollback_ends_a_canary_before_anything_else() -> None:
    now = deployed(1, 2)
    now = after(now, "canary", start_canary(now.roles, Canary(version=3, percent=1), PUBLISHED))
    now = rolled_back(now)
    assert now.roles == Roles(stable=2)
    assert rolled_back(now).roles.stable == 1


def test_rollbacks_go_further_and_further_back() -> None:
    now = deployed(1, 3, 2, 4)
    seen = []
    for _ in range(3):
        now = rolled_back(now)
        seen.append(now.roles.stable)
    assert seen == [2, 3, 1]
    with pytest.raises(DeploymentInvalid, match="no version before 1"):
        rolled_back(now)


def test_a_rolled_back_version_is_not_rolled_back_to() -> None:
    now = rolled_back(deployed(1, 2, 3))
    now = after(now, "deploy", deploy(now.roles, 4, PUBLISHED))
    assert rolled_back(now).roles.stable == 2


def test_rollback_without_a_history_takes_the_published_version_before() -> None:
    assert rolled_back(Deployment()).roles.stable == 3
    assert rolled_back(Deployment(), [1, 2]).roles.stable == 1


def test_rollback_skips_what_is_no_longer_published() -> None:
    assert rolled_back(deployed(1, 2, 3), [1, 3]).roles.stable == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda: deploy(Roles(), 9, PUBLISHED), "version 9 is not published; published: 1, 2, 3"),
        (lambda: start_canary(Roles(), Canary(version=9, percent=1), PUBLISHED), "not published"),
        (
            lambda: start_canary(Roles(stable=4), Canary(version=4, percent=1), PUBLISHED),
            "cannot be its own canary",
        ),
        (lambda: start_canary(Roles(), Canary(version=1, percent=1), [1]), "no version is publ"),
        (lambda: start_shadow(Roles(stable=2), Shadow(version=2), PUBLISHED), "cannot be a shadow"),
        (lambda: promote(Roles(stable=1)), "no canary to promote"),
        (lambda: pin(Roles(), [1, 7], PUBLISHED), "version 7 is not published"),
        (lambda: rollback(Deployment(), [1]), "no version before 1"),
    ],
)
def test_changes_that_do_not_fit(change: Callable[[], Roles], says: str) -> None:
    with pytest.raises(DeploymentInvalid, match=says):
        change()


@pytest.mark.parametrize(
    "roles",
    [
        {"stable": "newest", "canary": {"version": 1, "percent": 5}},
        {"stable": 1, "canary": {"version": 1, "percent": 5}},
        {"stable": 1, "shadow": {"version": 1}},
        {"stable": 1, "canary": {"version": 2, "percent": 5}, "shadow": {"version": 2}},
        {"stable": 1, "canary": {"version": 2, "percent": 0}},
        {"stable": 1, "canary": {"version": 2, "percent": float("nan")}},
        {"stable": 0},
        {"stable": True},
        {"stable": "latest"},
        {"stable": 1, "unknown": 2},
    ],
)
def test_roles_that_contradict_themselves(roles: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Roles.model_validate(roles)


def changed(now: Deployment, action: Action, version: int) -> Roles:
    if action == "deploy":
        return deploy(now.roles, version, PUBLISHED)
    if action == "canary":
        return start_canary(now.roles, Canary(version=version, percent=1), PUBLISHED)
    return promote(now.roles) if action == "promote" else rollback(now, PUBLISHED)


@given(
    st.lists(st.sampled_from(["deploy", "rollback", "canary", "promote"]), max_size=30), st.data()
)
def test_whatever_is_done_the_roles_stay_right(actions: list[Action], data: st.DataObject) -> None:
    now = Deployment()
    for action in actions:
        version = data.draw(st.sampled_from(PUBLISHED))
        try:
            roles = changed(now, action, version)
        except DeploymentInvalid:
            continue
        now = after(now, action, roles)
        assert Deployment.model_validate_json(now.model_dump_json()) == now
        if action == "rollback":
            assert roles.canary is None
    assert [each.generation for each in now.history] == [
        *range(now.generation - len(now.history) + 1, now.generation + 1)
    ]
