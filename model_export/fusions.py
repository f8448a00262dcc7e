"""The formula a model starts with: `models/<model>/fusions/default.yaml`."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict

from bundle.schema import Finite, Name


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FusionWeight(_Strict):
    """A weight that a request may change within bounds."""

    default: Finite
    minimum: Finite
    maximum: Finite


class FusionDefault(_Strict):
    """The formula a model starts with; the product team owns it once it is published."""

    formula: str
    expressions: dict[Name, str] = {}
    weights: dict[Name, Finite | FusionWeight] = {}
    description: str = ""
    owner: str = ""


def default_file(model_directory: Path) -> Path:
    """Where the default formula of a model lies."""
    return model_directory / "fusions" / "default.yaml"


def text_of(fusion: FusionDefault) -> str:
    """The formula as a fusion file has it."""
    content = fusion.model_dump(mode="json", exclude_defaults=True)
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def write_default(fusion: FusionDefault, target: Path) -> bool:
    """Write a model's default formula, atomically, unless there is one.

    The formula belongs to the product team once it is there: training never overwrites it.

    Returns:
        Whether it was written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=target.parent, encoding="utf-8") as file:
        file.write(text_of(fusion))
        file.flush()
        os.fsync(file.fileno())
        Path(file.name).chmod(0o644)
        try:
            os.link(file.name, target)  # unlike a rename, fails where there is a file already
        except FileExistsError:
            return False
    return True
