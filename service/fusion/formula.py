"""Fuse stage, at load: fusion files -> resolved, parsed, versioned fusions.

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
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    FiniteFloat,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from service.fusion.document import Document, Place, Tree, read_document
from service.fusion.errors import FusionError, Source, nearest
from service.fusion.language import Expression, is_name, parse

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
                self.model_dump(),
            )
        return self


def _name(text: str) -> str:
    if not is_name(text):
        raise PydanticCustomError("name", "not a name: letters, digits and _, no keyword")
    return text


_Name = Annotated[str, AfterValidator(_name)]


class FusionFile(BaseModel):
    """The content of a fusion file; in a `Fusion`, with what it inherits filled in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    formula: str
    expressions: dict[_Name, str] = {}
    weights: dict[_Name, Weight] = {}
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
    """

    name: str
    version: str
    file: FusionFile
    formula: Expression
    expressions: Mapping[str, Expression]


def load_fusions(directory: Path) -> dict[str, Fusion]:
    """Load every `<name>.yaml` of a directory, by name.

    Raises:
        FusionError: for the first file that cannot be used, with its place.
        OSError: the directory or a file cannot be read.
    """
    documents = {}
    for path in sorted(directory.iterdir()):
        if path.suffix == ".yaml" and not path.name.startswith("."):  # an editor's own files
            documents[path.stem] = read_document(path.name, path.read_bytes())
    if INLINE in documents:
        whole = documents[INLINE].whole
        raise FusionError(f"'{INLINE}' means a formula given in a request", whole)
    return {name: _fusion(name, _resolve(name, documents)) for name in documents}


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


def _resolve(name: str, documents: Mapping[str, Document]) -> Document:
    """The document `name` with all that it inherits, the farthest ancestor first."""
    line = [name]
    while isinstance(parent := documents[line[-1]].tree.get("inherits"), str):
        if parent not in documents:
            message = f"no file '{parent}.yaml' in this directory"
            raise documents[line[-1]].error(message, ("inherits",))
        if parent in line:
            chain = " -> ".join([*line, parent])
            raise documents[line[-1]].error(f"inherits from itself: {chain}", ("inherits",))
        line.append(parent)
    tree: Tree = {}
    places: dict[tuple[str, ...], Place] = {}
    for member in reversed(line):
        tree = _merged(tree, documents[member].tree)
        places |= documents[member].places
    return Document(documents[name].whole, tree, places)


def _merged(parent: Tree, child: Tree, inside: str = "") -> Tree:
    merged = dict(parent)
    for key, value in child.items():
        inherited = parent.get(key)
        if inside == "weights" and isinstance(inherited, dict) and isinstance(value, str):
            value = {"default": value}
        if isinstance(inherited, dict) and isinstance(value, dict):
            value = _merged(inherited, value, key)
        merged[key] = value
    return merged


def _fusion(name: str, document: Document) -> Fusion:
    try:
        file = FusionFile.model_validate(document.tree)
    except ValidationError as error:
        # A misspelt name is the cause, what is then missing the effect.
        cause = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
        raise _misfit(cause, document) from None
    formula = parse(document.places[("formula",)].value)
    expressions = {
        part: parse(document.places[("expressions", part)].value) for part in file.expressions
    }
    for part in file.expressions.keys() & file.weights.keys():
        raise document.error(f"'{part}' is an expression and a weight", ("expressions", part))
    return Fusion(name, _version(file), file, formula, _in_order(expressions))


def _misfit(error: ErrorDetails, document: Document) -> FusionError:
    """What pydantic refuses, in the words of the file and at its place."""
    path = tuple(str(part) for part in error["loc"])
    kind, field = error["type"], path[-1]
    if kind == "missing":
        return document.error(f"'{field}' is missing", path)
    if kind == "extra_forbidden":
        known = FusionFile.model_fields if len(path) == 1 else Weight.model_fields
        return document.error(f"unknown field '{field}'{nearest(field, known)}", path, at_key=True)
    return document.error(error["msg"], path, at_key=kind == "name")


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
