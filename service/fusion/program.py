"""Fuse stage, at load: parsed expressions -> a flat program of numpy calls.

Every name is resolved, every operand's type is checked, constants are folded, and equal
sub-expressions become one step. Values live in numbered slots; a step reads earlier slots and
fills its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from operator import itemgetter
from typing import Any, TypeAlias

import numpy as np

from service.fusion.errors import FusionError, nearest
from service.fusion.formula import Fusion
from service.fusion.language import Call, Constant, Expression, Name, Node, is_name
from service.fusion.operators import OPERATORS, Kind

MAX_OPERATORS = 512  # as written; bounds the time of loading and the time and memory of a run

FeatureKind: TypeAlias = str  # of a feature of the model, as its schema calls it
_KINDS: Mapping[FeatureKind, Kind] = {
    "number": "number",
    "bucketised": "number",  # the raw number; buckets are the model's own business
    "text": "text",  # of a rule's fields; no feature is of this kind
}
Step: TypeAlias = tuple[int, Callable[..., Any], Callable[[list[Any]], Sequence[Any]]]


@dataclass(frozen=True)
class Program:
    """What `CompiledFusion.evaluate` and the rules run.

    Args:
        slots: the constants in their slots, None elsewhere.
        tasks: task name -> slot; likewise weights and features. Only what is used.
        steps: (slot to fill, numpy function, getter of its operands), in order.
        result: the slot of the fused score.
        across: whether a step looks at all candidates of the request at once.
    """

    slots: tuple[Any, ...]
    tasks: Mapping[str, int]
    weights: Mapping[str, int]
    features: Mapping[str, int]
    steps: tuple[Step, ...]
    result: int
    across: bool

    def run(self, features: Mapping[str, float | str]) -> bool:
        """Evaluate a condition over fields of a request."""
        slots = list(self.slots)
        for name, slot in self.features.items():
            slots[slot] = features[name]
        with np.errstate(all="ignore"):
            for slot, apply, operands in self.steps:
                slots[slot] = apply(*operands(slots))
        return bool(slots[self.result])


@dataclass(frozen=True, slots=True)
class _Slot:
    kind: Kind
    per_candidate: bool
    constant: float | bool | str | None = None


def build_program(
    fusion: Fusion, tasks: Collection[str], features: Mapping[str, FeatureKind]
) -> Program:
    """Check and flatten the formula and the named expressions that it uses.

    Raises:
        FusionError: at the first name or operand that is wrong.
    """
    file = fusion.file
    builder = _Builder(tasks, file.weights, file.expressions, features)
    needed = {name.name for name in fusion.formula.names()}
    used = []
    for name, expression in reversed(list(fusion.expressions.items())):
        if name in needed:
            used.append(name)
            needed |= {inner.name for inner in expression.names()}
    for name in reversed(used):
        builder.expressions[name] = builder.add(fusion.expressions[name])
    result = builder.add(fusion.formula)
    root = fusion.formula.nodes[-1]
    slot = builder.slots[result]
    if slot.kind != "number":
        message = f"the formula must give a number, this is a {slot.kind}"
    elif not slot.per_candidate:
        message = "the formula gives every candidate the same score"
    else:
        return builder.program(result)
    raise FusionError(message, fusion.formula.source, root.start, root.end)


def build_condition(condition: Expression, fields: Mapping[str, FeatureKind]) -> Program:
    """Check and flatten a condition over fields of a request; its result is a boolean.

    Raises:
        FusionError: at the first name or operand that is wrong.
    """
    builder = _Builder((), {}, {}, fields)
    result = builder.add(condition)
    if builder.slots[result].kind != "boolean":
        message = f"a condition must give a boolean, this is a {builder.slots[result].kind}"
        raise _error(message, condition, condition.nodes[-1])
    return builder.program(result)


class _Builder:
    def __init__(
        self,
        tasks: Collection[str],
        weights: Collection[str],
        expressions: Collection[str],
        features: Mapping[str, FeatureKind],
    ) -> None:
        self.slots: list[_Slot] = []
        self.expressions: dict[str, int] = {}  # named expression -> slot of its value
        self._roles = {"task": tasks, "weight": weights, "expression": expressions}
        self._features = features
        self._interned: dict[Hashable, int] = {}
        self._inputs: dict[str, dict[str, int]] = {"task": {}, "weight": {}, "feature": {}}
        self._steps: list[Step] = []
        self._operators = 0
        self._across = False

    def program(self, result: int) -> Program:
        constants = tuple(slot.constant for slot in self.slots)
        tasks, weights, features = self._inputs.values()
        steps = tuple(self._steps)
        return Program(constants, tasks, weights, features, steps, result, self._across)

    def add(self, expression: Expression) -> int:
        """Add an expression's steps; returns the slot of its value."""
        of_node: list[int] = []
        for node in expression.nodes:
            if isinstance(node, Constant):
                slot = self._constant(node.value)
            elif isinstance(node, Name):
                slot = self._name(node, expression)
            else:
                slot = self._call(node, [of_node[operand] for operand in node.operands], expression)
            of_node.append(slot)
        return of_node[-1]

    def _slot(self, key: Hashable, slot: _Slot) -> int:
        number = self._interned.setdefault(key, len(self.slots))
        if number == len(self.slots):
            self.slots.append(slot)
        return number

    def _constant(self, value: float | bool | str) -> int:
        # repr tells True from 1.0 and from "1.0", and finds NaN equal to itself.
        kinds: dict[type, Kind] = {bool: "boolean", str: "text"}
        kind = kinds.get(type(value), "number")
        return self._slot(repr(value), _Slot(kind, False, value))

    def _input(self, role: str, name: str, per_candidate: bool, kind: Kind = "number") -> int:
        slot = self._slot((role, name), _Slot(kind, per_candidate))
        self._inputs[role][name] = slot
        return slot

    def _name(self, node: Name, expression: Expression) -> int:
        name = node.name
        found = [role for role, known in self._roles.items() if name in known]
        if len(found) > 1:
            raise _error(f"'{name}' is a {found[0]} and a {found[1]}", expression, node)
        if found == ["expression"]:
            return self.expressions[name]
        if found:
            return self._input(found[0], name, per_candidate=found == ["task"])
        if name in self._features:
            kind = self._features[name]
            if kind not in _KINDS:
                message = f"'{name}' is a {kind} feature; only numbers are usable"
                raise _error(message, expression, node)
            return self._input("feature", name, name.startswith("item."), _KINDS[kind])
        if name in OPERATORS:
            raise _error(f"'{name}' is a function: write {name}(...)", expression, node)
        known = [*chain(*self._roles.values()), *self._features]
        raise _error(f"unknown name '{name}'{nearest(name, known)}", expression, node)

    def _call(self, node: Call, operands: list[int], expression: Expression) -> int:
        operator = OPERATORS.get(node.operator)
        if operator is None:
            hint = nearest(node.operator, filter(is_name, OPERATORS))
            name = Name(node.operator, node.start, node.start + len(node.operator))
            raise _error(f"unknown function '{node.operator}'{hint}", expression, name)
        written = node.operator
        if written in ("==", "!=") and any(self.slots[each].kind == "text" for each in operands):
            node = replace(node, operator=f"text {written}")
            operator = OPERATORS[node.operator]
        takes = operator.takes
        if operator.variadic and len(operands) > len(takes):
            takes += takes[-1:] * (len(operands) - len(takes))
        if len(operands) != len(takes):
            least = " or more" if operator.variadic else ""
            message = f"'{written}' takes {len(takes)}{least} operands, not {len(operands)}"
            raise _error(message, expression, node)
        for kind, operand, index in zip(takes, operands, node.operands, strict=True):
            slot, child = self.slots[operand], expression.nodes[index]
            shown = written.removeprefix("unary ")
            if slot.kind != kind:
                message = f"'{shown}' takes a {kind} here, this is a {slot.kind}"
                raise _error(message, expression, child)
            if operator.across and not slot.per_candidate:
                message = f"'{shown}' compares candidates, this is one value for the whole request"
                raise _error(message, expression, child)
        if not operator.variadic:
            return self._step(node, operands, expression)
        folded = operands[0]
        for operand in operands[1:]:
            folded = self._step(node, [folded, operand], expression)
        return folded

    def _step(self, node: Call, operands: list[int], expression: Expression) -> int:
        self._operators += 1
        if self._operators > MAX_OPERATORS:
            raise _error(f"more than {MAX_OPERATORS} operators", expression, node)
        operator = OPERATORS[node.operator]
        slots = [self.slots[operand] for operand in operands]
        constants = [slot.constant for slot in slots if slot.constant is not None]
        if len(constants) == len(slots):
            with np.errstate(all="ignore"):
                return self._constant(operator.apply(*constants).item())
        per_candidate = not operator.gives_one and any(slot.per_candidate for slot in slots)
        new = len(self.slots)
        number = self._slot((node.operator, *operands), _Slot(operator.gives, per_candidate))
        if number == new:
            self._steps.append((number, operator.apply, _getter(operands)))
            self._across |= operator.across
        return number


def _getter(operands: list[int]) -> Callable[[list[Any]], Sequence[Any]]:
    """A getter of several slots as a sequence; itemgetter of one index would give a bare value."""
    if len(operands) == 1:
        return itemgetter(slice(operands[0], operands[0] + 1))
    return itemgetter(*operands)


def _error(message: str, expression: Expression, node: Node) -> FusionError:
    return FusionError(message, expression.source, node.start, node.end)
