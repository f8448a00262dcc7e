"""Fuse stage: which fusion a request gets that names none, by its context and its experiments.

    # fusions/rules.yaml
    context:                                 # fields that requests may give and no model reads
      scene: text
    experiments:
      likes_first: {control: 90, likes: 10}  # percent of the users; the rest is in no arm
    rules:                                   # the first whose condition holds
      late: {when: context.scene == "home" and context.hour >= 22, fusion: calm}
      likes: {when: experiment.likes_first == "likes", fusion: likes}

A condition is a formula of the fusion language over `context.*` and `experiment.*`. A field that a
request does not give is NaN, or the empty text. Where no rule holds it is `default`.

An arm is a share of the hash of experiment and user id: it stays with the user, is independent of
other experiments, and an arm that grows at the cost of the last one moves nobody else. A request
without a user id is in no arm: the experiment is the empty text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from service.fusion.directory import RULES
from service.fusion.document import Document, WrittenName, read_document, validated
from service.fusion.errors import FusionError, nearest
from service.fusion.language import Call, Constant, Expression, Name, parse
from service.fusion.program import Program, build_condition

DEFAULT = "default"
_CONTEXT, _EXPERIMENT = "context.", "experiment."
_SHOWN_CHARS = 60


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Rule(_Strict):
    when: str
    fusion: str
    description: str = ""


def _at_most_all(shares: dict[str, float]) -> dict[str, float]:
    if sum(shares.values()) > 100 + 1e-9:
        raise PydanticCustomError("shares", "the arms have more than 100 percent together")
    return shares


_Percent = Annotated[float, Field(ge=0, le=100)]
_Arms = Annotated[dict[WrittenName, _Percent], AfterValidator(_at_most_all)]


class _RulesFile(_Strict):
    context: dict[WrittenName, Literal["number", "text"]] = {}
    experiments: dict[WrittenName, _Arms] = {}
    rules: dict[WrittenName, _Rule] = {}
    description: str = ""
    owner: str = ""


@dataclass(frozen=True)
class Rules:
    """A rules file that is well formed, not yet compiled for a model.

    Args:
        version: 12 hexadecimal digits over the file's bytes.
        sources: the bytes, by the name of the file.
    """

    version: str
    sources: Mapping[str, bytes]
    file: _RulesFile
    document: Document
    conditions: Mapping[str, Expression]


@dataclass(frozen=True)
class _Compiled:
    name: str
    fusion: str
    condition: Program


@dataclass(frozen=True)
class CompiledRules:
    """The rules, compiled for the context features and the fusions of one model version.

    Args:
        version: of the rules.
        extra: context fields that are for the rules alone, not for the model.
        fusions: the names of the fusions that a request may get.
    """

    version: str
    extra: frozenset[str]
    fusions: frozenset[str]
    _kinds: Mapping[str, str]
    _experiments: Mapping[str, tuple[tuple[str, float], ...]]
    _rules: tuple[_Compiled, ...]

    def choose(self, user_id: str | None, context: Mapping[str, Any]) -> tuple[str, str | None]:
        """The fusion for a request, and the rule that says so; None where no rule holds.

        Raises:
            FusionError: a field of the context is of another type than the rules say.
        """
        values = {
            name: self._value(name.removeprefix(_CONTEXT), kind, context)
            for name, kind in self._kinds.items()
        }
        for experiment, arms in self._experiments.items():
            values[_EXPERIMENT + experiment] = _arm(experiment, arms, user_id)
        for rule in self._rules:
            if rule.condition.run(values):
                return rule.fusion, rule.name
        return DEFAULT, None

    @staticmethod
    def _value(name: str, kind: str, context: Mapping[str, Any]) -> float | str:
        given = context.get(name)
        if kind == "text":
            if given is None or isinstance(given, str):
                return given or ""
            if isinstance(given, int) and not isinstance(given, bool):
                return str(given)  # 196 and "196" are one, as in the feature store
        elif given is None:
            return float("nan")
        elif isinstance(given, int | float) and not isinstance(given, bool):
            return given
        raise FusionError(f"{_CONTEXT}{name} must be a {kind}, not {repr(given)[:_SHOWN_CHARS]}")


def parse_rules(content: bytes) -> Rules:
    """Parse the content of `rules.yaml`.

    Raises:
        FusionError: it cannot be used, whatever the model.
    """
    document = read_document(f"{RULES}.yaml", content)
    file = validated(_RulesFile, _Rule, document)
    conditions = {
        name: parse(document.places[("rules", name, "when")].value) for name in file.rules
    }
    version = hashlib.sha256(content).hexdigest()[:12]
    return Rules(version, {RULES: content}, file, document, conditions)


def compile_rules(
    rules: Rules, fusions: Collection[str], context: Mapping[str, str]
) -> CompiledRules:
    """Check the rules against a model version, and compile their conditions.

    Args:
        fusions: names of the fusions that are live.
        context: the kind of each context feature of the model, by its name without prefix.

    Raises:
        FusionError: an unknown field, experiment, arm or fusion, or a wrong type; at its place.
    """
    file = rules.file
    read = {name: _KINDS.get(kind, kind) for name, kind in context.items()}
    for name, kind in file.context.items():
        if read.get(name, kind) != kind:
            message = f"the model reads '{name}' as a {read[name]}"
            raise rules.document.error(message, ("context", name))
    kinds = {_CONTEXT + name: kind for name, kind in (read | file.context).items()}
    kinds |= {_EXPERIMENT + name: "text" for name in file.experiments}
    compiled = []
    used: set[str] = set()
    for name, rule in file.rules.items():
        if rule.fusion not in fusions:
            message = f"no fusion '{rule.fusion}'{nearest(rule.fusion, fusions)}"
            raise rules.document.error(message, ("rules", name, "fusion"))
        condition = build_condition(rules.conditions[name], kinds)
        _check_arms(rules.conditions[name], file.experiments)
        used |= condition.features.keys()
        compiled.append(_Compiled(name, rule.fusion, condition))
    declared = {_CONTEXT + name for name in file.context}
    return CompiledRules(
        version=rules.version,
        extra=frozenset(file.context.keys() - context.keys()),
        fusions=frozenset(rule.fusion for rule in compiled),
        _kinds={n: k for n, k in kinds.items() if n in used | declared and _CONTEXT in n},
        _experiments={
            name: tuple(zip(arms, accumulate(arms.values()), strict=True))
            for name, arms in file.experiments.items()
            if _EXPERIMENT + name in used
        },
        _rules=tuple(compiled),
    )


_KINDS = {"bucketised": "number", "categorical": "text"}


def _arm(experiment: str, arms: tuple[tuple[str, float], ...], user_id: str | None) -> str:
    if user_id is None:
        return ""
    hashed = hashlib.blake2b(f"{experiment}\0{user_id}".encode(), digest_size=8).digest()
    at = int.from_bytes(hashed, "big") / 2**64 * 100
    return next((arm for arm, end in arms if at < end), "")


def _check_arms(condition: Expression, experiments: Mapping[str, Mapping[str, float]]) -> None:
    """An experiment compared with an arm that it does not have is a mistake, not false."""
    for name, text in _compared(condition):
        if not name.name.startswith(_EXPERIMENT):
            continue
        arms = experiments[name.name.removeprefix(_EXPERIMENT)]
        if text.value not in arms and text.value != "":
            message = f"no arm '{text.value}'{nearest(str(text.value), arms)}"
            raise FusionError(message, condition.source, text.start, text.end)


def _compared(condition: Expression) -> Iterator[tuple[Name, Constant]]:
    for node in condition.nodes:
        if isinstance(node, Call) and len(node.operands) == 2:
            for one, other in (node.operands, node.operands[::-1]):
                name, text = condition.nodes[one], condition.nodes[other]
                if isinstance(name, Name) and isinstance(text, Constant):
                    yield name, text
