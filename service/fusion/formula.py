"""Fuse stage, at load: one fusion file, inheritance resolved -> a parsed, versioned fusion.

    # fusions/short_video.yaml
    inherits: default                  # another file of the directory; whatever is given here wins
    description: watch time counts
    owner: ranking@example.com
    formula: engagement * log1p(watch_time) ** w_watch
    expressions:
      engagement: click ** 0.6 * (1 + 2 * like)
    weights:
      w_watch: {default: 0.5, minimum: 0, maximum: 2}
      w_like: 0.8                      # alone: a new default in the inherited bounds, else fixed

What a formula names is checked later, by `compile`, for every model that it is to serve.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    FiniteFloat,
    model_validator,
)
from pydantic_core import PydanticCustomError

from service.fusion.document import Document, WrittenName, validated
from service.fusion.errors import FusionError, Source
from service.fusion.language import Expression, parse

INLINE = "inline"  # the name of a fusion that came with a request


class Weight(BaseModel):
    """A number of the formula that a request may override inside its bounds.

    A bare number in the file is a weight that no request can change.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    default: FiniteFloat
    minimum: FiniteFloat
    maximum: FiniteFloat

    @model_validator(mode="before")
    @classmethod
    def _bare_number(cls, value: Any) -> Any:
        if isinstance(value, str | int | float):
            return {"default": value, "minimum": value, "maximum": value}
        return value

    @model_validator(mode="after")
    def _ordered(self) -> Weight:
        if not self.minimum <= self.default <= self.maximum:
            raise PydanticCustomError(
                "weight_bounds",
                "the default {default} is not within {minimum} .. {maximum}",
                {name: f"{value:g}" for name, value in self.model_dump().items()},
            )
        return self


class FusionFile(BaseModel):
    """The content of a fusion file; in a `Fusion`, with what it inherits filled in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    formula: str
    expressions: dict[WrittenName, str] = {}
    weights: dict[WrittenName, Weight] = {}
    inherits: str | None = None
    description: str = ""
    owner: str = ""


@dataclass(frozen=True)
class Fusion:
    """A fusion that is complete and well formed, not yet compiled for a model.

    Args:
        name: the file's name without `.yaml`, or `inline`.
        version: 12 hexadecimal digits over all that decides a score: formula, expressions,
            weights. A new description or owner is no new version.
        file: the resolved content.
        formula: the parsed formula.
        expressions: the parsed named expressions, each after those that it uses.
        sources: the content of its file, and of those that it inherits from, by name.
    """

    name: str
    version: str
    file: FusionFile
    formula: Expression
    expressions: Mapping[str, Expression]
    sources: Mapping[str, bytes] = field(default_factory=dict)


def adhoc_fusion(formula: str) -> Fusion:
    """The fusion of a formula given in a request, named `inline`.

    Raises:
        FusionError: the formula cannot be parsed.
    """
    expression = parse(Source.whole(INLINE, formula))
    file = FusionFile(formula=formula)
    return Fusion(INLINE, _version(file), file, expression, {})


def _version(file: FusionFile) -> str:
    content = file.model_dump(include={"formula", "expressions", "weights"})
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def resolved_fusion(name: str, document: Document, sources: Mapping[str, bytes]) -> Fusion:
    """The fusion that a document holds, which has in it all that it inherits.

    Raises:
        FusionError: a field is missing, unknown or wrong, or a formula cannot be parsed.
    """
    if name == INLINE:
        raise FusionError(f"'{INLINE}' means a formula given in a request", document.whole)
    file = validated(FusionFile, Weight, document)
    formula = parse(document.places[("formula",)].value)
    expressions = {
        part: parse(document.places[("expressions", part)].value) for part in file.expressions
    }
    for part in file.expressions.keys() & file.weights.keys():
        raise document.error(f"'{part}' is an expression and a weight", ("expressions", part))
    return Fusion(name, _version(file), file, formula, _in_order(expressions), sources)


def _in_order(expressions: Mapping[str, Expression]) -> dict[str, Expression]:
    """Sort expressions so that each stands after those that it uses."""
    uses: dict[str, Iterable[str]] = {
        name: {used.name for used in expression.names() if used.name in expressions}
        for name, expression in expressions.items()
    }
    try:
        order = tuple(TopologicalSorter(uses).static_order())
    except CycleError as error:
        used, user = error.args[1][:2]  # the first is used by the second
        place = next(name for name in expressions[user].names() if name.name == used)
        chain = " -> ".join(reversed(error.args[1]))
        message = f"an expression that uses itself: {chain}"
        raise FusionError(message, expressions[user].source, place.start, place.end) from None
    return {name: expressions[name] for name in order}
