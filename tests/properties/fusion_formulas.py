"""Random fusion formulas, typed as the language demands, and their text.

Independent of `service.fusion`: its own tree and its own idea of what needs parentheses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import strategies as st


@dataclass(frozen=True)
class Tree:
    """A formula: a literal or a name in `text` if there are no operands, else an operator."""

    text: str
    operands: tuple[Tree, ...] = ()
    parentheses: bool = False  # written though not needed


_BINARY = ("+", "-", "*", "/", "**", "**")
_COMPARE = ("<", "<=", ">", ">=", "==", "!=")
_UNARY = ("negate", "abs", "sqrt", "log", "log1p", "exp", "sigmoid", "logit")
_ACROSS = ("rank", "percentile", "minmax", "zscore", "softmax")
_NUMBER_KINDS = ("leaf", "binary", "binary", "unary", "many", "if", "across", "mean", "clip")
_LITERALS = ("0", "1", "2", "0.5", "3", "1e3", ".25", "1e-300", "1e300", "10.", "0.1")


def formulas(
    per_candidate: Sequence[str], per_request: Sequence[str], depth: int = 4
) -> st.SearchStrategy[Tree]:
    """Formulas over these names that give a number per candidate.

    One string of bytes makes all choices: far quicker than a draw for each, and bytes that shrink
    to 0 make the formula simpler.
    """
    names = tuple(per_candidate), tuple(per_request)
    choices = st.binary(min_size=32, max_size=32)
    return choices.map(lambda drawn: _Writer(drawn, *names).number(depth, True))


class _Writer:
    def __init__(
        self, choices: bytes, per_candidate: tuple[str, ...], per_request: tuple[str, ...]
    ) -> None:
        self._choices = iter(choices)
        self._per_candidate = per_candidate
        self._leaves = (*per_candidate, *per_request, *_LITERALS)

    def _choose(self, options: Sequence[str]) -> str:
        return options[next(self._choices, 0) % len(options)]

    def _tree(self, operator: str, *operands: Tree) -> Tree:
        return Tree(operator, operands, parentheses=next(self._choices, 0) % 4 == 3)

    def _either_order(self, operator: str, condition: tuple[Tree, ...], a: Tree, b: Tree) -> Tree:
        swap = next(self._choices, 0) % 2
        return self._tree(operator, *condition, *((b, a) if swap else (a, b)))

    def number(self, depth: int, candidate: bool) -> Tree:
        """A number; per candidate if `candidate` says so, else either."""
        kind = self._choose(_NUMBER_KINDS) if depth else "leaf"
        if kind == "leaf":
            return Tree(self._choose(self._per_candidate if candidate else self._leaves))
        if kind == "across":
            return self._tree(self._choose(_ACROSS), self.number(depth - 1, True))
        if kind == "mean" and not candidate:
            return self._tree("mean", self.number(depth - 1, True))
        # The first operand carries what the whole must be; the others are free.
        first = self.number(depth - 1, candidate)
        if kind == "binary":
            operator = self._choose(_BINARY)
            return self._either_order(operator, (), first, self.number(depth - 1, False))
        if kind == "if":
            condition = self.boolean(depth - 1)
            return self._either_order("if", (condition,), first, self.number(depth - 1, False))
        if kind == "clip":
            return self._tree("clip", first, self.number(0, False), self.number(0, False))
        if kind == "many":
            count = 1 + next(self._choices, 0) % 3
            others = [self.number(depth - 1, False) for _ in range(count)]
            return self._tree(self._choose(("min", "max")), first, *others)
        return self._tree(self._choose(_UNARY), first)

    def boolean(self, depth: int) -> Tree:
        """A truth value."""
        kind = self._choose(("compare", "compare", "literal", "and", "or", "not"))
        if kind == "literal":
            return Tree(self._choose(("true", "false")))
        if kind == "compare" or depth == 0:
            inner = max(depth - 1, 0)
            operands = self.number(inner, False), self.number(inner, False)
            return self._tree(self._choose(_COMPARE), *operands)
        operands = self.boolean(depth - 1), self.boolean(depth - 1)
        return self._tree(kind, *operands[: 1 if kind == "not" else 2])


# How tightly each operator binds, and how tightly its left and right operand must.
_BINDING = {
    "or": (1, 1, 2),
    "and": (2, 2, 3),
    "not": (3, 0, 3),
    **dict.fromkeys(_COMPARE, (4, 4, 5)),
    **dict.fromkeys("+-", (5, 5, 6)),
    **dict.fromkeys("*/", (6, 6, 7)),
    "negate": (7, 0, 7),
    "**": (8, 9, 7),
}


def render(tree: Tree) -> str:
    """The text of a formula, with no more parentheses than needed or drawn."""
    if not tree.operands:
        return tree.text
    binding = _BINDING.get(tree.text)
    if binding is None:
        text = f"{tree.text}({', '.join(render(operand) for operand in tree.operands)})"
    elif len(tree.operands) == 1:
        sign = {"negate": "-", "not": "not "}[tree.text]
        text = sign + _operand(tree.operands[0], binding[2])
    else:
        left, right = tree.operands
        text = f"{_operand(left, binding[1])} {tree.text} {_operand(right, binding[2])}"
    return f"({text})" if tree.parentheses else text


def _operand(tree: Tree, floor: int) -> str:
    text = render(tree)
    loose = tree.operands and _BINDING.get(tree.text, (9,))[0] < floor
    return f"({text})" if loose and not tree.parentheses else text
