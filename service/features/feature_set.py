"""Feature sets: whose rows, of which layout, under which keys; from a bundle or from a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from bundle.manifest import ModelName
from bundle.rows import RowLayout
from bundle.schema import Entity, Feature, FeatureSchema, Name
from bundle.store import Bundle
from service.features.keys import key_prefix
from service.features.table_files import TableInvalid

STORED: tuple[Entity, Entity] = ("user", "item")
"""The entities that have rows in a store."""


class FeatureSetInvalid(Exception):
    """A feature set's file is wrong; the message names the file and the field."""


class _Document(BaseModel):
    """A feature set's file: `feature_set`, `ids` (entity -> column) and `features`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    feature_set: ModelName
    ids: dict[Entity, Name] = {}
    features: tuple[Feature, ...]


def feature_file(bundle: Bundle, entity: Entity, file: Path | None) -> tuple[Path, str]:
    """The table to load for an entity, and its id column: `file`, else the bundle's sample.

    Raises:
        TableInvalid: neither is there.
    """
    sample = bundle.manifest.samples.get(entity)
    if file is not None:
        return file, sample.key if sample else f"{entity}_id"
    if sample is None:
        raise TableInvalid(f"the bundle has no sample of {entity} features: name a file")
    return bundle.path / sample.file, sample.key


@dataclass(frozen=True)
class FeatureSet:
    """Rows of users and items that models share.

    Attributes:
        schema: the features, of which those of users and items are stored.
        ids: the column of a table that holds the ids of an entity.
    """

    name: str
    schema: FeatureSchema
    ids: dict[Entity, str]

    def layout(self, entity: Entity) -> RowLayout:
        """The layout of an entity's rows."""
        return RowLayout(self.schema, entity)

    def prefix(self, entity: Entity) -> str:
        """What the keys of an entity's rows begin with; the id follows."""
        return key_prefix(self.name, self.layout(entity))

    @staticmethod
    def of_bundle(bundle: Bundle) -> FeatureSet:
        """The feature set that a model version reads."""
        manifest = bundle.manifest
        ids = {entity: f"{entity}_id" for entity in STORED}
        samples = {entity: sample.key for entity, sample in manifest.samples.items()}
        return FeatureSet(manifest.feature_set, manifest.features, {**ids, **samples})

    @staticmethod
    def of_file(path: Path) -> FeatureSet:
        """A feature set declared in YAML, before there is a model; raises FeatureSetInvalid."""
        try:
            document = _Document.model_validate(yaml.safe_load(path.read_text()))
            schema = FeatureSchema(features=document.features)
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise FeatureSetInvalid(f"{path}: {error}") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise FeatureSetInvalid(f"{path}: {where}: {first['msg']}") from error
        ids = {entity: f"{entity}_id" for entity in STORED}
        return FeatureSet(document.feature_set, schema, {**ids, **document.ids})
