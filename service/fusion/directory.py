"""Fuse stage, at load: a directory of fusion files -> fusions, each with what it inherits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from service.files import read_plain
from service.fusion.document import Document, Place, Tree, read_document
from service.fusion.errors import FusionError
from service.fusion.formula import Fusion, resolved_fusion

RULES = "rules"  # the name of the file that says which fusion a request gets
NO_CHANGES: Mapping[str, bytes] = MappingProxyType({})


@dataclass(frozen=True)
class Fusions:
    """What a directory of fusion files holds.

    Args:
        usable: the fusions that are well formed, by name.
        mistakes: why the others are not, by name.
    """

    usable: Mapping[str, Fusion]
    mistakes: Mapping[str, FusionError]


def read_fusions(directory: Path, changed: Mapping[str, bytes] = NO_CHANGES) -> Fusions:
    """Read every `<name>.yaml` of a directory; one that is wrong does not harm its neighbours.

    Args:
        changed: contents, by name, that stand in for what the directory has.

    Raises:
        OSError: the directory cannot be read.
    """
    texts: dict[str, bytes] = {}
    unreadable: dict[str, FusionError] = {}
    for path in sorted(directory.iterdir()):
        if path.suffix == ".yaml" and not path.name.startswith(".") and path.stem != RULES:
            try:
                texts[path.stem] = read_plain(path)
            except OSError as error:
                unreadable[path.stem] = FusionError(f"{path.name}: {error.strerror}")
    parsed = parse_fusions({**texts, **{n: text for n, text in changed.items() if n != RULES}})
    return Fusions(parsed.usable, unreadable | dict(parsed.mistakes))


def load_fusions(directory: Path) -> Mapping[str, Fusion]:
    """Load every `<name>.yaml` of a directory, by name.

    Raises:
        FusionError: for the first file that cannot be used, with its place.
        OSError: the directory cannot be read.
    """
    read = read_fusions(directory)
    for mistake in read.mistakes.values():
        raise mistake
    return read.usable


def parse_fusions(texts: Mapping[str, bytes]) -> Fusions:
    """Parse the contents of fusion files, by name, which may inherit from each other."""
    documents: dict[str, Document] = {}
    usable: dict[str, Fusion] = {}
    mistakes: dict[str, FusionError] = {}
    for name, content in texts.items():
        try:
            documents[name] = read_document(f"{name}.yaml", content)
        except FusionError as mistake:
            mistakes[name] = mistake
    for name in documents:
        try:
            line = _line(name, documents, mistakes)
            sources = {member: texts[member] for member in line}
            document = _resolved([documents[member] for member in line])
            usable[name] = resolved_fusion(name, document, sources)
        except FusionError as mistake:
            mistakes[name] = mistake
    return Fusions(usable, mistakes)


def _line(
    name: str, documents: Mapping[str, Document], mistakes: Mapping[str, FusionError]
) -> list[str]:
    """A file and all that it inherits from, the farthest ancestor last."""
    line = [name]
    while isinstance(parent := documents[line[-1]].tree.get("inherits"), str):
        heir = documents[line[-1]]
        if parent in line:
            chain = " -> ".join([*line, parent])
            raise heir.error(f"inherits from itself: {chain}", ("inherits",))
        if parent not in documents:
            if parent in mistakes:
                raise mistakes[parent]
            raise heir.error(f"no file '{parent}.yaml' in this directory", ("inherits",))
        line.append(parent)
    return line


def _resolved(line: Sequence[Document]) -> Document:
    """The first document with all that it inherits from the others."""
    tree: Tree = {}
    places: dict[tuple[str, ...], Place] = {}
    for document in reversed(line):
        tree = _merged(tree, document.tree)
        # A weight given as a bare number stands for the whole of the inherited one.
        bare = {path for path, place in document.places.items() if place.value is not place.key}
        kept = {path: place for path, place in places.items() if path[:2] not in bare}
        places = {**kept, **document.places}
    return Document(line[0].whole, tree, places)


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
