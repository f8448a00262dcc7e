"""The embedded store: all rows in this process, loaded from Parquet. Needs no server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from bundle.encoding import Encoder
from bundle.schema import Entity
from bundle.store import Bundle
from service.features.feature_set import feature_file
from service.features.keys import key_prefix, keys_of
from service.features.store import Asked, Node, Places, one_node
from service.features.tables import read_whole_table
from service.values import Keys


class EmbeddedStore:
    """Keeps rows in a dictionary; never fails, never waits."""

    name = "embedded"
    tracked = True
    nodes = ("",)

    def __init__(self) -> None:
        self._rows: dict[str, bytes] = {}
        self.generation = 0
        self.sources: dict[str, object] = {}
        """Prefix of keys -> what says which table its rows came from last."""

    def put(self, rows: Iterable[tuple[str, bytes]]) -> None:
        """Add or replace rows."""
        self._rows.update(rows)
        self.generation += 1

    def nodes_of(self, prefix: str, ids: Keys) -> Sequence[tuple[Node, Places]]:
        """This process."""
        return one_node()

    async def get_many(self, asked: Sequence[Asked], node: Node = "") -> list[bytes | None]:
        """The row of each key, or None."""
        get = self._rows.get
        return [get(key) for prefix, ids in asked for key in keys_of(prefix, ids)]

    async def follow(self, changed: Callable[[Iterable[str]], None]) -> None:
        """Nothing to report: `put` counts the generation up."""

    async def ping(self) -> None:
        """Always there."""

    async def close(self) -> None:
        """Nothing to close."""


def load_embedded(
    store: EmbeddedStore, bundle: Bundle, encoder: Encoder, files: Mapping[Entity, Path | None]
) -> None:
    """Load a version's users and items into the store: from `files`, else the bundle's sample.

    Raises:
        TableInvalid: a file cannot be read, or there is none.
    """
    for entity, file in files.items():
        layout = encoder.layouts[entity]
        path, key = feature_file(bundle, entity, file)
        prefix = key_prefix(bundle.manifest.feature_set, layout)
        source = bundle.manifest.files[path.name] if file is None else _identity(path)
        if store.sources.get(prefix) == source:
            continue  # another version brought the same table
        for rows in read_whole_table(path, key, layout):
            store.put((prefix + entity_id, row) for entity_id, row in rows)
        store.sources[prefix] = source


def _identity(path: Path) -> tuple[str, int, int] | None:
    try:
        stat = path.stat()
    except OSError:  # reading it says so in its own words
        return None
    return str(path), stat.st_size, stat.st_mtime_ns
