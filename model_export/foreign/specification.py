"""A specification, read: the YAML file with the features, vocabularies and indices it declares."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from bundle.schema import Feature, FeatureSchema
from model_export import yaml_files
from model_export.errors import ConfigInvalid, SpecInvalid
from model_export.foreign.spec import Indices, Spec


class Specification:
    """A specification, read, with the features that it declares.

    Attributes:
        path: the file; paths in it are relative to its directory.
        spec: what it holds.
        features: the bundle's schema.
        vocabularies: hashes of the values, by feature key.
        indices: feature key -> the graph's indices; of those that share a vocabulary, its owner's.
    """

    def __init__(self, path: Path) -> None:
        """Read a specification.

        Raises:
            SpecInvalid: not readable, not YAML, or a field is wrong; names it.
        """
        self.path = path
        self.spec = _parse(path)
        self.vocabularies: dict[str, npt.NDArray[np.uint64]] = {}
        features: list[Feature] = []
        own: dict[str, Indices] = {}
        for position, declared in enumerate(self.spec.features):
            name = (declared.model_extra or {}).get("name")
            try:
                values = declared.values(path.parent)
                feature = declared.feature(None if values is None else len(values))
            except OSError as error:
                place = f"features.{position} ({name}).vocabulary"
                raise SpecInvalid(f"{path}: {place}: {error.strerror}: {error.filename}") from error
            except ValidationError as error:
                raise SpecInvalid(_problems(path, error, f"features.{position} ({name})")) from None
            features.append(feature)
            if values is not None:
                self.vocabularies[feature.key] = values
            if declared.indices is not None:
                own[feature.key] = declared.indices
        try:
            self.features = FeatureSchema(features=tuple(features))
        except ValidationError as error:
            raise SpecInvalid(_problems(path, error, "features")) from None
        self.indices = {
            feature.key: own.get(feature.key)
            or own.get(self.features.owner(feature).key, Indices())
            for feature in self.features.features
        }
        self._check_inputs()

    def _check_inputs(self) -> None:
        known = {feature.key for feature in self.features.features}
        fed: set[str] = set()
        for name, keys in self.spec.inputs.items():
            for key in keys:
                if key not in known:
                    there = f"there is {', '.join(sorted(known))}"
                    problem = f"no feature {key}{nearest(key, known)}; {there}"
                    raise self.error(f"inputs.{name}", problem)
            fed.update(keys)
        if idle := sorted(known - fed):
            raise self.error("inputs", f"{', '.join(idle)} feeds none of them; leave it out")

    def error(self, field: str, problem: str) -> SpecInvalid:
        """An error about one field."""
        return SpecInvalid(f"{self.path}: {field}: {problem}")


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean ...?`, or nothing where nothing is near."""
    near = difflib.get_close_matches(name, sorted(known), 1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def _parse(path: Path) -> Spec:
    try:
        content = yaml_files.read(path)
    except ConfigInvalid as error:
        raise SpecInvalid(str(error)) from error
    if not isinstance(content, Mapping):
        raise SpecInvalid(f"{path}: expected a mapping of fields")
    if isinstance(inputs := content.get("inputs"), dict):  # one feature need not be a list
        lists = {name: [keys] if isinstance(keys, str) else keys for name, keys in inputs.items()}
        content = {**content, "inputs": lists}
    try:
        return Spec.model_validate(content)
    except ValidationError as error:
        raise SpecInvalid(_problems(path, error, "")) from None


def _problems(path: Path, error: ValidationError, field: str) -> str:
    found: dict[str, str] = {}
    for each in error.errors(include_url=False):
        parts = [field] if field else []
        parts += [str(part) for part in each["loc"]]
        found.setdefault(".".join(parts), each["msg"].removeprefix("Value error, "))
    return f"{path}: " + "; ".join(f"{where}: {message}" for where, message in found.items())
