"""Fusion files: content, inheritance, version, and mistakes at their place in the file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from service.fusion.compile import compile_fusion
from service.fusion.directory import load_fusions
from service.fusion.document import MAX_BYTES
from service.fusion.errors import FusionError
from service.fusion.formula import Fusion, Weight, adhoc_fusion

TASKS = ("click", "like", "watch")
DEFAULT = """\
description: the usual
owner: ranking@example.com
formula: engagement * log1p(watch) ** w_watch
expressions:
  engagement: click ** 0.6 * (1 + w_like * like)
weights:
  w_watch: {default: 0.5, minimum: 0, maximum: 2}
  w_like: 2
"""


def load(directory: Path, **files: str) -> Mapping[str, Fusion]:
    for name, text in files.items():
        (directory / f"{name}.yaml").write_text(text)
    return load_fusions(directory)


def mistake(directory: Path, **files: str) -> str:
    with pytest.raises(FusionError) as caught:
        load(directory, **files)
    return str(caught.value)


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("no fusion")
    fusion = load(tmp_path, default=DEFAULT)["default"]
    assert fusion.name == "default"
    assert fusion.file.owner == "ranking@example.com"
    assert fusion.file.weights == {
        "w_watch": Weight(default=0.5, minimum=0, maximum=2),
        "w_like": Weight(default=2, minimum=2, maximum=2),
    }
    compile_fusion(fusion, TASKS, {})


def test_inheritance(tmp_path: Path) -> None:
    fusions = load(
        tmp_path,
        default=DEFAULT,
        middle="inherits: default\nweights:\n"
        "  w_watch: 1.5\n  bonus: {default: 0, minimum: 0, maximum: 1}",
        last="inherits: middle\nexpressions: {engagement: click + bonus}\nweights: {bonus: 0.25}",
    )
    file = fusions["last"].file
    assert file.formula == "engagement * log1p(watch) ** w_watch"
    assert file.expressions == {"engagement": "click + bonus"}
    assert file.owner == "ranking@example.com"
    assert file.weights == {
        "w_watch": Weight(default=1.5, minimum=0, maximum=2),
        "w_like": Weight(default=2, minimum=2, maximum=2),
        "bonus": Weight(default=0.25, minimum=0, maximum=1),
    }


def test_an_inherited_mistake_is_shown_in_the_file_that_has_it(tmp_path: Path) -> None:
    fusions = load(
        tmp_path,
        default=DEFAULT.replace("like)", "lke)"),
        child="inherits: default\nformula: engagement",
    )
    with pytest.raises(FusionError) as caught:
        compile_fusion(fusions["child"], TASKS, {})
    assert str(caught.value) == (
        "default.yaml:5:44: unknown name 'lke'; did you mean 'like'?\n"
        "      engagement: click ** 0.6 * (1 + w_like * lke)\n"
        "                                               ^^^"
    )


def test_an_inherited_bound_holds_for_the_new_default(tmp_path: Path) -> None:
    shown = mistake(tmp_path, default=DEFAULT, child="inherits: default\nweights:\n  w_watch: 3")
    assert shown.startswith("child.yaml:3:12: the default 3 is not within 0 .. 2\n")


@pytest.mark.parametrize(
    ("files", "start"),
    [
        ({"a": "inherits: a"}, "a.yaml:1:11: inherits from itself: a -> a\n"),
        ({"a": "inherits: b", "b": "inherits: c", "c": "formula: x\ninherits: a"},
         "c.yaml:2:11: inherits from itself: a -> b -> c -> a\n"),
        ({"a": "formula: x\ninherits: b"}, "a.yaml:2:11: no file 'b.yaml' in this directory\n"),
        ({"a": "inherits: ../b"}, "a.yaml:1:11: no file '../b.yaml' in this directory\n"),
    ],
)  # fmt: skip
def test_inheritance_that_leads_nowhere(tmp_path: Path, files: dict[str, str], start: str) -> None:
    assert mistake(tmp_path, **files).startswith(start)


def test_a_long_line_of_ancestors(tmp_path: Path) -> None:
    files = {f"f{n}": f"inherits: f{n - 1}" for n in range(1, 300)}
    assert load(tmp_path, f0="formula: click", **files)["f299"].file.formula == "click"


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("formula: click\nformula: like", "a.yaml:2:1: 'formula' is given twice\n"),
        ("formla: click", "a.yaml:1:1: unknown field 'formla'; did you mean 'formula'?\n"),
        ("owner: me", "a.yaml:1:1: 'formula' is missing\n"),
        ("", "a.yaml:1:1: 'formula' is missing\n"),
        ("click * like", "a.yaml:1:1: expected names with text or numbers"),
        ("formula: [click]", "a.yaml:1:10: expected names with text or numbers"),
        ("formula: &a click\nowner: *a", "a.yaml:2:8: expected names with text or numbers"),
        ("a: {b: {c: {d: e}}}", "a.yaml:1:12: nested too deep\n"),
        ("formula: a: b", "a.yaml:1:11: not YAML: mapping values are not allowed"),
        ('formula: "\\U99999999"', "a.yaml:1:13: not YAML: "),
        ("owner: é\nformula: é\x01", "a.yaml:2:11: not YAML: control characters are not allowed\n"),
        ("formula: \x01", "a.yaml:1:10: not YAML: control characters are not allowed\n"),
        ("a: b\n---\na: b", "a.yaml:2:1: expected one document\n"),
        ("formula: x\nweights: {w: many}", "a.yaml:2:14: Input should be a valid number"),
        ("formula: x\nweights: {w: .inf}", "a.yaml:2:14: Input should be a"),
        ("formula: x\nweights: {w: {default: 1, minimum: 0}}", "a.yaml:2:11: 'maximum' is missing"),
        ("formula: x\nweights: {w: {default: 3, minimum: 0, maximum: 2}}",
         "a.yaml:2:24: the default 3 is not within 0 .. 2\n"),
        ("formula: x\nweights: {w: {default: 0, minimum: 0, max: 2}}",
         "a.yaml:2:39: unknown field 'max'; did you mean 'maximum'?\n"),
        ("formula: x\nweights: {and: 1}", "a.yaml:2:11: not a name"),
        ("formula: x\nexpressions: {a.b: 1}", "a.yaml:2:15: not a name"),
        ("formula: x\nexpressions: {a: b, b: c + a, c: 1}",
         "a.yaml:2:28: an expression that uses itself: a -> b -> a\n"),
        ("formula: x\nexpressions: {a: 1}\nweights: {a: 1}",
         "a.yaml:2:18: 'a' is an expression and a weight\n"),
        ("formula: x\nexpressions: {a: 1 +}", "a.yaml:2:21: expected a value"),
    ],
)  # fmt: skip
def test_mistakes_in_a_file(tmp_path: Path, text: str, start: str) -> None:
    shown = mistake(tmp_path, a=text)
    assert shown.startswith(start), shown


def test_a_file_that_is_no_text_or_too_much(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"formula: click\nowner: \xff")
    assert mistake(tmp_path).startswith("a.yaml:2:8: not UTF-8\n")
    path.write_bytes(b"#" * (MAX_BYTES + 1))
    assert mistake(tmp_path).startswith("a.yaml:1:1: a fusion file has at most 32768 bytes")


def test_inline_is_no_file_name(tmp_path: Path) -> None:
    assert "'inline' means a formula given in a request" in mistake(tmp_path, inline="formula: x")


@pytest.mark.parametrize(
    ("text", "place", "line"),
    [
        ("formula: like * clik", "1:17", "formula: like * clik"),
        ("formula: 'like * clik'", "1:18", "formula: 'like * clik'"),
        ("formula: >-\n  like\n\n  * clik\n", "4:5", "  * clik"),
        ("owner: me\nformula: |  # why\n  like\n    * clik\n", "4:7", "    * clik"),
        ("formula: like\n  * clik", "2:5", "  * clik"),
        ('formula: "like * \\x63lik"', "1:10", 'formula: "like * \\x63lik"'),
        ("\ufeffformula: like * clik", "1:17", "formula: like * clik"),
    ],
)
def test_places_in_yaml(tmp_path: Path, text: str, place: str, line: str) -> None:
    fusion = load(tmp_path, a=text)["a"]
    with pytest.raises(FusionError) as caught:
        compile_fusion(fusion, TASKS, {})
    heading, shown, _ = str(caught.value).split("\n")
    assert heading == f"a.yaml:{place}: unknown name 'clik'; did you mean 'click'?"
    assert shown == f"    {line}"


def test_version_is_of_what_decides_the_score(tmp_path: Path) -> None:
    flat = DEFAULT.replace("w_like: 2", "w_like: 3")
    fusions = load(
        tmp_path,
        default=DEFAULT,
        described=DEFAULT.replace("the usual", "something else"),
        flat=flat,
        child="inherits: default\nweights: {w_like: {default: 3, minimum: 3, maximum: 3}}",
    )
    versions = {name: fusion.version for name, fusion in fusions.items()}
    assert versions["default"] == versions["described"]
    assert versions["flat"] == versions["child"] != versions["default"]
    assert all(len(version) == 12 for version in versions.values())


def test_an_expression_that_is_not_used_may_name_another_models_task(tmp_path: Path) -> None:
    text = "formula: used\nexpressions: {used: click + inner, inner: like, unused: share}"
    compiled = compile_fusion(load(tmp_path, a=text)["a"], TASKS, {})
    assert compiled.tasks_used == ("click", "like")


def test_a_formula_given_in_a_request() -> None:
    fusion = adhoc_fusion("click")
    assert fusion.name == "inline"
    assert fusion.version == adhoc_fusion("click").version != adhoc_fusion("like").version
