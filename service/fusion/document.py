"""Fuse stage, at load: a YAML file -> nested text, with the place of every piece.

Only what a fusion file needs of YAML: mappings of text, to a depth of three. Numbers stay text
(`Weight` reads them), and tags, anchors and lists are refused. Reading the parser's events rather
than its objects gives positions, repeated keys, and no recursion.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from service.fusion.errors import FusionError, Source, nearest
from service.fusion.language import is_name

MAX_BYTES = 32_768
_MAX_DEPTH = 3  # weights -> click -> default

Tree: TypeAlias = "dict[str, str | Tree]"
Path: TypeAlias = tuple[str, ...]
_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True)
class Place:
    """Where a key is written, and its value; the key again for a value that is a mapping."""

    key: Source
    value: Source


@dataclass(frozen=True)
class Document:
    """A file's mapping, and the place of every path in it."""

    whole: Source
    tree: Tree
    places: Mapping[Path, Place]

    def error(self, message: str, path: Path, at_key: bool = False) -> FusionError:
        """An error at the value of `path`, or at its key; if it is missing, at what is around."""
        for length in range(len(path), 0, -1):
            if place := self.places.get(path[:length]):
                source = place.key if at_key else place.value
                return FusionError(message, source, 0, len(source.text))
        return FusionError(message, self.whole)


def read_document(name: str, content: bytes) -> Document:
    """Read the bytes of a YAML file called `name`.

    Raises:
        FusionError: not UTF-8, not YAML, larger than `MAX_BYTES`, or not a mapping of text.
    """
    if len(content) > MAX_BYTES:
        message = f"a fusion file has at most {MAX_BYTES} bytes, not {len(content)}"
        raise FusionError(message, Source.whole(name, ""))
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        readable = content[: error.start].decode()
        raise FusionError("not UTF-8", Source.whole(name, readable), len(readable)) from None
    whole = Source.whole(name, text)
    try:
        return _read(whole)
    except yaml.MarkedYAMLError as error:
        at = _index(error.problem_mark or error.context_mark)
        raise FusionError(f"not YAML: {error.problem}", whole, min(at, len(text))) from None
    except yaml.reader.ReaderError as error:
        before = text.encode()[: error.position].decode(errors="ignore")  # it counts bytes
        raise FusionError(f"not YAML: {error.reason}", whole, len(before)) from None
    except (ValueError, OverflowError) as error:  # of an escape or a directive past its range
        raise FusionError(f"not YAML: {error}", whole) from None


def _name(text: str) -> str:
    if not is_name(text):
        raise PydanticCustomError("name", "not a name: letters, digits and _, no keyword")
    return text


WrittenName = Annotated[str, AfterValidator(_name)]
"""A key of a file that formulas may name."""


def validated(model: type[_Model], part: type[BaseModel], document: Document) -> _Model:
    """The content of a document as a model.

    Args:
        part: the model of what is nested in it.

    Raises:
        FusionError: a field is missing, unknown or wrong, at its place.
    """
    try:
        return model.model_validate(document.tree)
    except ValidationError as error:
        # A misspelt name is the cause, what is then missing the effect.
        cause = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
        raise _misfit(cause, model, part, document) from None


def _misfit(
    error: ErrorDetails, model: type[BaseModel], part: type[BaseModel], document: Document
) -> FusionError:
    """What pydantic refuses, in the words of the file and at its place."""
    path = tuple(str(each) for each in error["loc"] if each != "[key]")
    if error["type"] == "weight_bounds":
        path = (*path, "default")
    kind, field = error["type"], path[-1]
    if kind == "missing":
        return document.error(f"'{field}' is missing", path)
    if kind == "extra_forbidden":
        known = (model if len(path) == 1 else part).model_fields
        return document.error(f"unknown field '{field}'{nearest(field, known)}", path, at_key=True)
    return document.error(error["msg"], path, at_key=kind == "name")


def _read(whole: Source) -> Document:
    places: dict[Path, Place] = {}
    root: Tree = {}
    open_trees: list[Tree] = []
    path: Path = ()  # of the value awaited next; as long as open_trees is, else a key is awaited
    documents = 0
    for event in yaml.parse(whole.text, Loader=yaml.CSafeLoader):  # C: 20 times as fast
        awaits_key = len(path) < len(open_trees)
        at = _index(event.start_mark)
        if isinstance(event, yaml.MappingStartEvent) and not (open_trees and awaits_key):
            if len(open_trees) == _MAX_DEPTH:
                raise FusionError("nested too deep", whole, at)
            inner: Tree = {} if path else root
            if path:
                open_trees[-1][path[-1]] = inner
            open_trees.append(inner)
        elif isinstance(event, yaml.MappingEndEvent):
            open_trees.pop()
            path = path[:-1]
        elif isinstance(event, yaml.ScalarEvent) and open_trees:
            source = _source(whole, event)
            if awaits_key:
                path = (*path, event.value)
                if path in places:
                    message = f"'{event.value}' is given twice"
                    raise FusionError(message, source, 0, len(event.value))
                places[path] = Place(source, source)
            else:
                open_trees[-1][path[-1]] = event.value
                places[path] = Place(places[path].key, source)
                path = path[:-1]
        elif isinstance(event, yaml.NodeEvent):
            raise FusionError("expected names with text or numbers: 'name: value'", whole, at)
        elif isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise FusionError("expected one document", whole, at)
    return Document(whole, root, places)


def _source(whole: Source, event: yaml.ScalarEvent) -> Source:
    """Where every character of a scalar stands in the file.

    YAML folds lines and drops indentation, but keeps what is not white space in order, so the
    two are walked side by side. Where they differ (quotes doubled, escapes) the place of all is
    the scalar's beginning.
    """
    text, value = whole.text, event.value
    begin, end = _index(event.start_mark), _index(event.end_mark)
    at = begin
    if event.style in ("|", ">"):
        at = text.find("\n", begin) + 1 or end  # past the header
    elif event.style:
        at += 1  # past the quote
    offsets = []
    for character in value:
        if not character.isspace():
            while at < end and text[at].isspace():
                at += 1
            if at >= end or text[at] != character:
                return Source(whole.name, value, text, [begin] * (len(value) + 1))
        offsets.append(at)
        if not character.isspace():
            at += 1
    return Source(whole.name, value, text, [*offsets, at])


def _index(mark: Any) -> int:
    return int(mark.index) if mark else 0
