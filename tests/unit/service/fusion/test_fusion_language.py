"""The grammar: how operators group, and what an author sees of a mistake."""

from __future__ import annotations

import sys

import pytest

from service.fusion.errors import FusionError, Source
from service.fusion.language import MAX_CHARS, MAX_DEPTH, Call, Constant, Expression, parse


def grouped(text: str) -> str:
    """The formula with every operator in parentheses."""

    def show(expression: Expression, index: int) -> str:
        node = expression.nodes[index]
        if isinstance(node, Constant):
            return f"{node.value}"
        if isinstance(node, Call):
            operands = " ".join(show(expression, operand) for operand in node.operands)
            return f"({node.operator} {operands})"
        return node.name

    expression = parse(Source.whole("inline", text))
    return show(expression, len(expression.nodes) - 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a + b * c", "(+ a (* b c))"),
        ("a - b - c", "(- (- a b) c)"),
        ("a / b * c", "(* (/ a b) c)"),
        ("a ** b ** c", "(** a (** b c))"),
        ("-a ** b", "(unary - (** a b))"),
        ("a ** -b ** c", "(** a (unary - (** b c)))"),
        ("-a * b", "(* (unary - a) b)"),
        ("(a + b) * c", "(* (+ a b) c)"),
        ("a < b + 1 and not c > d or e == f", "(or (and (< a (+ b 1.0)) (not (> c d))) (== e f))"),
        ("not not a", "(not (not a))"),
        ("if(true, item.price, min(a, b, .5e1))", "(if True item.price (min a b 5.0))"),
        ("a\n  +\tb", "(+ a b)"),
    ],
)
def test_grouping(text: str, expected: str) -> None:
    assert grouped(text) == expected


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("click * ", "inline:1:8: expected a value, found the end of the formula\n"
                     "    click * \n"
                     "           ^"),
        ("(a", "inline:1:3: expected ')', found the end of the formula\n    (a\n      ^"),
        ("max(a b)", "inline:1:7: expected ',' or ')', found 'b'\n    max(a b)\n          ^"),
        ("a b", "inline:1:3: expected an operator or the end of the formula, found 'b'\n"
                "    a b\n"
                "      ^"),
        ("a +\n  b $ c", "inline:2:5: unexpected character '$'\n      b $ c\n        ^"),
        ("a ^ b", "inline:1:3: unexpected character '^'; did you mean '**'?\n    a ^ b\n      ^"),
        ("a + 'b", "inline:1:5: unexpected character \"'\"\n    a + 'b\n        ^"),
        ("a = b", "inline:1:3: unexpected character '='; did you mean '=='?\n    a = b\n      ^"),
        ("a + 1e999", "inline:1:5: number too large\n    a + 1e999\n        ^^^^^"),
        ("", "inline:1:1: expected a value, found the end of the formula\n    \n    ^"),
        ("a and and", "inline:1:7: expected a value, found 'and'\n    a and and\n          ^^^"),
        ("a.__b__.c", "inline:1:8: unexpected character '.'\n    a.__b__.c\n           ^"),
        ("\x00", "inline:1:1: unexpected character '\\x00'\n    ?\n    ^"),
    ],
)  # fmt: skip
def test_mistakes_are_shown_where_they_are(text: str, shown: str) -> None:
    with pytest.raises(FusionError) as caught:
        parse(Source.whole("inline", text))
    assert str(caught.value) == shown


@pytest.mark.parametrize("unit", ["(", "-", "not ", "f(", "a ** ", "-(", "if(1, "])
def test_depth_is_bounded(unit: str) -> None:
    with pytest.raises(FusionError, match=f"nested more than {MAX_DEPTH} deep"):
        parse(Source.whole("inline", unit * MAX_DEPTH + "a"))
    with pytest.raises(FusionError):
        parse(Source.whole("inline", unit * sys.getrecursionlimit()))


def test_a_long_sum_is_not_deep() -> None:
    assert len(parse(Source.whole("inline", "a + " * 1000 + "a")).nodes) == 2001


def test_size_is_bounded() -> None:
    parse(Source.whole("inline", "a".ljust(MAX_CHARS)))
    with pytest.raises(FusionError, match="at most 4096 characters") as caught:
        parse(Source.whole("inline", "a".ljust(MAX_CHARS + 1)))
    assert caught.value.column == MAX_CHARS + 1
    with pytest.raises(FusionError, match="a name has at most 128 characters"):
        parse(Source.whole("inline", "a" * 129))


def test_a_long_line_is_shown_around_its_caret() -> None:
    with pytest.raises(FusionError) as caught:
        parse(Source.whole("inline", "a + " * 500 + "$"))
    _, line, caret = str(caught.value).split("\n")
    assert len(line) < 110
    assert line[caret.index("^")] == "$"
    assert caught.value.column == 2001
