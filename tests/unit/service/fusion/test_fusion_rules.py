"""Rules: which fusion a request gets, and mistakes at their place."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from service.fusion.errors import FusionError
from service.fusion.rules import CompiledRules, compile_rules, parse_rules

FUSIONS = ("default", "calm", "likes")
CONTEXT = {"hour": "bucketised", "weekday": "categorical", "seen": "id_list"}
RULES = """
context: {scene: text, speed: number}
experiments:
  likes_first: {control: 90, likes: 10}
rules:
  late: {when: context.scene == "home" and context.hour >= 22, fusion: calm}
  sunday: {when: context.weekday == 'sunday', fusion: calm}
  fast: {when: log(context.speed) > 1, fusion: calm}
  likes: {when: experiment.likes_first == "likes", fusion: likes}
"""


def compiled(text: str) -> CompiledRules:
    return compile_rules(parse_rules(text.encode()), FUSIONS, CONTEXT)


def mistake(text: str) -> str:
    with pytest.raises(FusionError) as caught:
        compiled(text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("context", "chosen"),
    [
        ({"scene": "home", "hour": 22}, ("calm", "late")),
        ({"scene": "home", "hour": 21.5}, ("default", None)),
        ({"scene": "detail", "hour": 23}, ("default", None)),
        ({"scene": "home"}, ("default", None)),
        ({"hour": 23}, ("default", None)),
        ({"weekday": "sunday", "scene": "home", "hour": 23}, ("calm", "late")),
        ({"weekday": "sunday"}, ("calm", "sunday")),
        ({"weekday": None, "scene": None, "hour": None}, ("default", None)),
        ({"speed": 3}, ("calm", "fast")),
        ({"speed": -3}, ("default", None)),
        ({}, ("default", None)),
        ({"what the model reads": [1, 2]}, ("default", None)),
    ],
)
def test_the_first_rule_that_holds(context: dict[str, Any], chosen: tuple[str, str | None]) -> None:
    assert compiled(RULES).choose(None, context) == chosen


def test_an_integer_is_a_text_as_in_the_feature_store() -> None:
    rules = compiled('context: {slot: text}\nrules: {a: {when: context.slot == "7", fusion: calm}}')
    assert rules.choose(None, {"slot": 7}) == ("calm", "a")
    assert rules.extra == {"slot"}


@pytest.mark.parametrize(
    ("context", "says"),
    [
        ({"scene": 1.5}, "context.scene must be a text, not 1.5"),
        ({"scene": True}, "context.scene must be a text, not True"),
        ({"scene": ["home"] * 100}, "context.scene must be a text, not ['home', 'home', "),
        ({"hour": "22"}, "context.hour must be a number, not '22'"),
        ({"hour": False}, "context.hour must be a number, not False"),
        ({"speed": {}}, "context.speed must be a number, not {}"),
    ],
)
def test_a_field_of_another_type_is_named(context: dict[str, Any], says: str) -> None:
    with pytest.raises(FusionError) as caught:
        compiled(RULES).choose("u", context)
    assert str(caught.value).startswith(says)
    assert len(str(caught.value)) < 110


def arms(shares: str, name: str = "e", users: int = 4000) -> list[str | None]:
    wanted = [arm.split(":")[0] for arm in shares.split(", ")]
    rules = "\n".join(
        f'  {arm}: {{when: experiment.{name} == "{arm}", fusion: likes}}' for arm in wanted
    )
    chosen = compiled(f"experiments: {{{name}: {{{shares}}}}}\nrules:\n{rules}\n")
    return [chosen.choose(f"u{number}", {})[1] for number in range(users)]


def test_arms_have_their_share_stay_with_the_user_and_are_independent() -> None:
    first = arms("a: 50, b: 25")
    counts = Counter(first)
    assert abs(counts["a"] - 2000) < 200
    assert abs(counts["b"] - 1000) < 160
    assert abs(counts[None] - 1000) < 160
    assert arms("a: 50, b: 25") == first
    both = Counter(zip(first, arms("a: 50, b: 25", name="other"), strict=True))
    assert abs(both["a", "a"] - 1000) < 160


def test_an_arm_that_grows_takes_from_the_next_and_moves_nobody_else() -> None:
    small, large = arms("likes: 10, control: 90"), arms("likes: 20, control: 80")
    moved = {(before, after) for before, after in zip(small, large, strict=True) if before != after}
    assert moved == {("control", "likes")}


def test_without_a_user_id_there_is_no_arm() -> None:
    rules = compiled(
        "experiments: {e: {all: 100}}\n"
        'rules: {none: {when: experiment.e == "", fusion: calm}, '
        'all: {when: experiment.e == "all", fusion: likes}}'
    )
    assert rules.choose(None, {}) == ("calm", "none")
    assert rules.choose("u", {}) == ("likes", "all")


def test_the_version_is_that_of_the_content() -> None:
    assert compiled(RULES).version == compiled(RULES).version != compiled(RULES + "# more").version


def test_no_rules_at_all() -> None:
    assert compiled("").choose("u", {}) == ("default", None)


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("rules:\n  a: {when: context.hour > 'x', fusion: calm}",
         "rules.yaml:2:28: '>' takes a number here, this is a text\n"),
        ("rules:\n  a: {when: context.weekday == 1, fusion: calm}",
         "rules.yaml:2:32: '==' takes a text here, this is a number\n"),
        ("rules:\n  a: {when: context.weekdy == '1', fusion: calm}",
         "rules.yaml:2:13: unknown name 'context.weekdy'; did you mean 'context.weekday'?\n"),
        ("rules:\n  a: {when: context.seen == '1', fusion: calm}",
         "rules.yaml:2:13: 'context.seen' is a id_list feature"),
        ("rules: {a: {when: context.hour, fusion: calm}}",
         "rules.yaml:1:19: a condition must give a boolean, this is a number\n"),
        ("rules: {a: {when: click > 1, fusion: calm}}", "rules.yaml:1:19: unknown name 'click'"),
        ("rules: {a: {when: true, fusion: clam}}",
         "rules.yaml:1:33: no fusion 'clam'; did you mean 'calm'?\n"),
        ("rules: {a: {when: tru}}", "rules.yaml:1:9: 'fusion' is missing\n"),
        ("rules: {a: {if: true, when: true, fusion: calm}}", "rules.yaml:1:13: unknown field 'if'"),
        ("rule: {}", "rules.yaml:1:1: unknown field 'rule'; did you mean 'rules'?\n"),
        ("context: {scene: string}", "rules.yaml:1:18: Input should be 'number' or 'text'\n"),
        ("context: {hour: text}", "rules.yaml:1:17: the model reads 'hour' as a number\n"),
        ("experiments: {e: {a: 60, b: 41}}", "rules.yaml:1:15: the arms have more than 100"),
        ("experiments: {e: {a: -1}}", "rules.yaml:1:22: Input should be greater than"),
        ("experiments: {e: {a: 9}}\nrules: {a: {when: experiment.e == 'b', fusion: calm}}",
         "rules.yaml:2:35: no arm 'b'\n"),
        ("rules: {a: {when: experiment.e == 'b', fusion: calm}}",
         "rules.yaml:1:19: unknown name 'experiment.e'"),
        ("rules: {a b: {when: true, fusion: calm}}", "rules.yaml:1:9: not a name"),
        ("rules: [a]", "rules.yaml:1:8: expected names with text or numbers"),
    ],
)  # fmt: skip
def test_mistakes(text: str, start: str) -> None:
    assert mistake(text).startswith(start), mistake(text)
    assert "^" in mistake(text)
