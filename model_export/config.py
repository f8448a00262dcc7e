"""The configuration of one experiment: a YAML file that says what is trained, on what, and how."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bundle.manifest import ModelName
from bundle.schema import Finite
from model_export import yaml_files
from model_export.data.declarations import FeatureDeclaration
from model_export.data.loaders import DataOptions
from model_export.data.tasks import TaskDeclaration
from model_export.errors import ConfigInvalid
from model_export.fusions import FusionDefault
from model_export.models.families import Architecture
from model_export.training.device import DeviceName, Precision
from model_export.weighting import AnyWeighting, StaticOptions


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TrainingOptions(_Strict):
    """How long and how fast.

    Attributes:
        epochs: at most so many passes over the training part.
        batch_rows: candidate rows of a step.
        learning_rate: of AdamW at the start; it falls linearly to zero over all epochs, which
            gives steadier results than a constant one.
        weight_decay: of AdamW.
        patience: epochs without a better validation objective after which training stops.
        threads: of torch. Small networks gain little from more than one, and where other work
            shares the cores they lose much, waiting for each other.
        device: `auto` is CUDA where there is one.
        precision: of the matrix products; `auto` is bfloat16 on CUDA and float32 elsewhere.
    """

    epochs: Annotated[int, Field(ge=1)] = 10
    batch_rows: Annotated[int, Field(ge=2)] = 2048
    learning_rate: Annotated[Finite, Field(gt=0)] = 1e-3
    weight_decay: Annotated[Finite, Field(ge=0)] = 0.0
    patience: Annotated[int, Field(ge=1)] = 2
    threads: Annotated[int, Field(ge=1)] = 1
    device: DeviceName = "auto"
    precision: Precision = "auto"


class Config(_Strict):
    """One experiment.

    Attributes:
        name: of the experiment; its run directory is called so.
        model: the name that the model is published under. Experiments may share it: the published
            versions of a model may differ in family.
        seed: of initialisation, dropout, the order of the rows and the sampling of negatives.
        weighting: how the tasks' losses or gradients are combined.
    """

    name: ModelName
    model: ModelName
    description: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    data: DataOptions
    features: Annotated[tuple[FeatureDeclaration, ...], Field(min_length=1)]
    tasks: Annotated[tuple[TaskDeclaration, ...], Field(min_length=1)]
    architecture: Architecture
    weighting: AnyWeighting = StaticOptions()
    training: TrainingOptions = TrainingOptions()
    fusion: FusionDefault | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for field, names in (
            ("features", [feature.key for feature in self.features]),
            ("tasks", [task.name for task in self.tasks]),
        ):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{field}: declared twice: {', '.join(twice)}")
        if not any(task.serve for task in self.tasks):
            raise ValueError("tasks: none is served")
        entities = {feature.entity for feature in self.features}
        if "item" not in entities:
            raise ValueError("features: at least one item feature is needed")
        if not entities & {"user", "context"}:
            raise ValueError("features: at least one user or context feature is needed")
        self.architecture.check(self.features, self.tasks)
        return self


def load(path: Path) -> Config:
    """Read a configuration.

    Raises:
        ConfigInvalid: not readable, not YAML, or a field is wrong or given twice; names both.
    """
    return parse(yaml_files.read(path), str(path))


def parse(content: Any, source: str) -> Config:
    """Validate what a YAML file holds.

    Raises:
        ConfigInvalid: a field is wrong; names it and `source`.
    """
    if not isinstance(content, dict):
        raise ConfigInvalid(f"{source}: expected a mapping of fields")
    try:
        return Config.model_validate(content)
    except ValidationError as error:
        problems = [_problem(content, one["loc"], one["msg"]) for one in error.errors()]
        raise ConfigInvalid(f"{source}: " + "; ".join(problems)) from error


def dump(config: Config) -> str:
    """The configuration as YAML, every default spelt out."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _problem(content: dict[str, Any], location: tuple[int | str, ...], message: str) -> str:
    """`features.2 (age).quantiles: ...`: an entry of a list is named, not only counted."""
    words: list[str] = []
    at: Any = content
    for part in location:
        try:
            at = at[part]
        except (KeyError, IndexError, TypeError):
            at = None
        name = at.get("name") if isinstance(part, int) and isinstance(at, dict) else None
        words.append(f"{part} ({name})" if name else str(part))
    where = ".".join(words)
    message = message.removeprefix("Value error, ")
    return f"{where}: {message}" if where else message
