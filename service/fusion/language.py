"""Fuse stage, at load: the text of a formula -> a tree with positions.

    or < and < not < comparison < + - < * / < unary - < **        (** binds to the right)

    formula    = number | text | true | false | name | name "." name | name "(" formula, ... ")"
               | "(" formula ")" | "-" formula | "not" formula | formula operator formula
    text       = one line in double or single quotes, without escapes

The parser is Pratt's (Top Down Operator Precedence, POPL 1973). It knows the grammar only:
which names and functions exist, and what they take, is checked by `compile`. The tree is a flat
list with children before their parents, so that nobody who walks it needs recursion.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from service.fusion.errors import FusionError, Source

MAX_CHARS = 4096
MAX_NAME_CHARS = 128
MAX_DEPTH = 64  # nested parentheses, calls, signs and powers; a long sum is not deep

KEYWORDS = frozenset({"and", "or", "not", "true", "false"})

# Binding power to the left and to the right; the right one is higher where equal operators
# group to the left.
_INFIX = {
    "or": (1, 2),
    "and": (3, 4),
    **dict.fromkeys(("<", "<=", ">", ">=", "==", "!="), (6, 7)),
    **dict.fromkeys("+-", (8, 9)),
    **dict.fromkeys("*/", (10, 11)),
    "**": (14, 13),
}
_PREFIX = {"not": ("not", 5), "-": ("unary -", 12)}

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+)
    |   (?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
    |   (?P<text>"[^"\r\n]*"|'[^'\r\n]*')
    |   (?P<name>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)?)
    |   (?P<symbol>\*\*|<=|>=|==|!=|[-+*/<>(),])""",
    re.VERBOSE,
)
_MEANT = {"&": "and", "|": "or", "!": "not", "=": "==", "^": "**"}  # habits from elsewhere


@dataclass(frozen=True, slots=True)
class Constant:
    """A number, a text or a truth value written in the formula."""

    value: float | bool | str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Name:
    """A task, a weight, a named expression, or a feature such as `item.price`."""

    name: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Call:
    """An operator or a function with its operands, as indices of earlier nodes."""

    operator: str
    operands: tuple[int, ...]
    start: int
    end: int


Node = Constant | Name | Call


@dataclass(frozen=True)
class Expression:
    """A parsed formula. `nodes` holds children before parents; the last node is the whole."""

    source: Source
    nodes: tuple[Node, ...]

    def names(self) -> Iterator[Name]:
        """Every use of a name, in order of appearance."""
        return (node for node in self.nodes if isinstance(node, Name))


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # number, text, name, symbol or end
    text: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)


def is_name(text: str) -> bool:
    """Whether a weight or a named expression may be called so."""
    return re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", text) is not None and text not in KEYWORDS


def parse(source: Source) -> Expression:
    """Parse the text of a formula.

    Raises:
        FusionError: at the first character that does not belong, if the text is longer than
            `MAX_CHARS`, or nested deeper than `MAX_DEPTH`.
    """
    if len(source.text) > MAX_CHARS:
        raise FusionError(f"a formula has at most {MAX_CHARS} characters", source, MAX_CHARS)
    return _Parser(source).parse()


def _tokens(source: Source) -> Iterator[_Token]:
    text, at = source.text, 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            meant = _MEANT.get(text[at])
            hint = f"; did you mean '{meant}'?" if meant else ""
            raise FusionError(f"unexpected character {text[at]!r}{hint}", source, at)
        at = match.end()
        if match.lastgroup == "name" and at - match.start() > MAX_NAME_CHARS:
            message = f"a name has at most {MAX_NAME_CHARS} characters"
            raise FusionError(message, source, match.start(), at)
        if match.lastgroup and match.lastgroup != "space":
            yield _Token(match.lastgroup, match.group(), match.start())
    # The end is placed right after the last token, not after the line feed that YAML may add.
    yield _Token("end", "", len(text.rstrip()))


class _Parser:
    """One pass over the tokens; `_token` is the next one, not yet taken."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._tokens = _tokens(source)
        self._token = next(self._tokens)
        self._taken_end = 0
        self._depth = 0
        self._nodes: list[Node] = []

    def parse(self) -> Expression:
        self._formula(0)
        if self._token.kind != "end":
            raise self._unexpected("an operator or the end of the formula")
        return Expression(self._source, tuple(self._nodes))

    def _formula(self, floor: int) -> int:
        """Parse operators that bind at least as tightly as `floor`; returns the node's index."""
        if self._depth == MAX_DEPTH:
            token = self._token
            raise FusionError(
                f"nested more than {MAX_DEPTH} deep", self._source, token.start, token.end
            )
        self._depth += 1
        start = self._token.start
        left = self._operand()
        while self._token.text in _INFIX and _INFIX[self._token.text][0] >= floor:
            operator = self._take().text
            right = self._formula(_INFIX[operator][1])
            left = self._call(operator, (left, right), start)
        self._depth -= 1
        return left

    def _operand(self) -> int:
        token = self._token
        if token.text in _PREFIX:
            self._take()
            operator, floor = _PREFIX[token.text]
            return self._call(operator, (self._formula(floor),), token.start)
        if token.text == "(":
            self._take()
            inside = self._formula(0)
            self._expect(")")
            return inside
        if token.kind == "number":
            self._take()
            value = float(token.text)
            if value == float("inf"):
                raise FusionError("number too large", self._source, token.start, token.end)
            return self._add(Constant(value, token.start, token.end))
        if token.kind == "text":
            self._take()
            return self._add(Constant(token.text[1:-1], token.start, token.end))
        if token.text in ("true", "false"):
            self._take()
            return self._add(Constant(token.text == "true", token.start, token.end))
        if token.kind == "name" and token.text not in KEYWORDS:
            self._take()
            if self._token.text == "(":
                return self._call(token.text, self._arguments(), token.start)
            return self._add(Name(token.text, token.start, token.end))
        raise self._unexpected("a value")

    def _arguments(self) -> tuple[int, ...]:
        self._expect("(")
        arguments = [self._formula(0)]
        while self._token.text == ",":
            self._take()
            arguments.append(self._formula(0))
        self._expect(")", "',' or ')'")
        return tuple(arguments)

    def _call(self, operator: str, operands: tuple[int, ...], start: int) -> int:
        return self._add(Call(operator, operands, start, self._taken_end))

    def _add(self, node: Node) -> int:
        self._nodes.append(node)
        return len(self._nodes) - 1

    def _take(self) -> _Token:
        token = self._token
        self._taken_end = token.end
        self._token = next(self._tokens)
        return token

    def _expect(self, symbol: str, expected: str = "") -> None:
        if self._token.text != symbol:
            raise self._unexpected(expected or f"'{symbol}'")
        self._take()

    def _unexpected(self, expected: str) -> FusionError:
        token = self._token
        found = f"'{token.text}'" if token.text else "the end of the formula"
        message = f"expected {expected}, found {found}"
        return FusionError(message, self._source, token.start, token.end)
