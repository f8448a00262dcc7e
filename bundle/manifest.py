"""The manifest: everything a server must know about a model version before it opens it.

`manifest.json` is written in one canonical form and carries the digest of itself, so that a single
changed byte anywhere in a bundle is found.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from bundle.errors import DigestMismatch, ManifestInvalid, SchemaVersionUnknown
from bundle.schema import Entity, FeatureSchema, Name
from bundle.stages import PLAIN_NAME, FileName, SingleStage, Stage, Stages

SCHEMA_VERSION: Literal[1] = 1
MANIFEST_FILE = "manifest.json"
VOCABULARIES_FILE = "vocabularies.npz"
GOLDEN_FILE = "golden.npz"
UNPUBLISHED = 0

ModelName = Annotated[str, Field(pattern=PLAIN_NAME, max_length=128)]
ColumnName = Annotated[str, Field(min_length=1, max_length=512)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Task(_Strict):
    """One output column of the model.

    A binary task's score is a probability; a regression task's is in the label's own unit.
    """

    name: Name
    kind: Literal["binary", "regression"]
    description: str = ""


_STAGE_TAGS = ("three stages", "a single stage")


def _stages_tag(stages: object) -> str:
    single = isinstance(stages, SingleStage) or (isinstance(stages, dict) and "single" in stages)
    return _STAGE_TAGS[single]


class FileDigest(_Strict):
    """Size and digest of one file of the bundle."""

    bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Parity(_Strict):
    """How far the bundle's scores are from its reference's, over all checked batch shapes.

    Attributes:
        reference: whose scores those were, and the golden rows' are: torch's; those of the graph
            that was imported, run by onnxruntime; or those that came with an imported graph.
    """

    reference: Literal["torch", "imported_graph", "given"] = "torch"
    max_abs_difference: float
    rows: tuple[int, ...]
    users: tuple[int, ...]


class Calibration(_Strict):
    """How the probabilities of a task were made to be what they say, in the graph itself.

    Attributes:
        parameters: platt: slope and intercept on the logit. isotonic: knots of the curve, from
            `scores` to `probabilities`.
        fitted_on, measured_on: parts of the data; neither is the training part.
        bins: of the expected calibration error.
        ece_before, ece_after: expected calibration error without and with it.
    """

    method: Literal["platt", "isotonic"]
    parameters: dict[str, tuple[float, ...]]
    fitted_on: str
    fitted_rows: int
    measured_on: str
    measured_rows: int
    bins: str
    ece_before: float | None
    ece_after: float | None


class Sample(_Strict):
    """A Parquet file of real entities in the bundle: an id column, the features, and more.

    `file` has one row an entity; `key` is its id column; `display` names columns that are no
    features and are good to show to a person (titles, say).
    """

    file: FileName
    key: ColumnName
    display: tuple[ColumnName, ...] = ()


class Manifest(_Strict):
    """The contents of `manifest.json`.

    Attributes:
        schema_version: of the manifest itself.
        model: the model's name, the directory that all its versions live in.
        version: the published version; 0 while the bundle is not published.
        feature_set: names the rows of a feature store; models may share one.
        tasks: in the order of the score columns.
        calibration: of the tasks that have one.
        files: each file of the bundle but the manifest.
        training: data set, configuration and held-out metrics, for people.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    model: ModelName
    version: Annotated[int, Field(ge=UNPUBLISHED)] = UNPUBLISHED
    family: str
    created_at: str
    feature_set: ModelName
    features: FeatureSchema
    tasks: Annotated[tuple[Task, ...], Field(min_length=1)]
    stages: Annotated[
        Annotated[Stages, Tag(_STAGE_TAGS[0])] | Annotated[SingleStage, Tag(_STAGE_TAGS[1])],
        Discriminator(_stages_tag),
    ]
    parity: Parity
    calibration: dict[Name, Calibration] = {}
    samples: dict[Entity, Sample] = {}
    files: dict[FileName, FileDigest]
    training: dict[str, Any] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        names = self.task_names
        if len(set(names)) != len(names):
            raise ValueError(f"tasks declared twice: {names}")
        stages: dict[str, Stage] = dict(self.stages)
        *_, last = stages
        if (width := stages[last].output_width) != len(names):
            raise ValueError(f"stages.{last}: {width} outputs for {len(names)} tasks")
        needed = {
            *(stage.file for stage in stages.values()),
            VOCABULARIES_FILE,
            GOLDEN_FILE,
            *(sample.file for sample in self.samples.values()),
        }
        if absent := needed - set(self.files):
            raise ValueError(f"files: no digest for {', '.join(sorted(absent))}")
        return self

    @property
    def task_names(self) -> tuple[str, ...]:
        """Names of the tasks, in the order of the score columns."""
        return tuple(task.name for task in self.tasks)


def serialise(manifest: Manifest) -> bytes:
    """The canonical bytes of a manifest, its own digest included."""
    content = manifest.model_dump(mode="json")
    body = json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False)
    digest = hashlib.sha256(body.encode()).hexdigest()
    text = json.dumps({"digest": digest, **content}, indent=1, ensure_ascii=False)
    return text.encode() + b"\n"


def parse(raw: bytes) -> Manifest:
    """Parse `manifest.json`.

    Raises:
        ManifestInvalid: not JSON, or not a manifest; says which field.
        SchemaVersionUnknown: a manifest of another release.
        DigestMismatch: the text is not, byte for byte, what `serialise` wrote.
    """
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ManifestInvalid(f"{MANIFEST_FILE}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ManifestInvalid(f"{MANIFEST_FILE}: not a JSON object")
    found = content.get("schema_version")
    if found != SCHEMA_VERSION:
        raise SchemaVersionUnknown(
            f"{MANIFEST_FILE}: schema_version {found!r}; this release reads {SCHEMA_VERSION}"
        )
    content.pop("digest", None)
    try:
        manifest = Manifest.model_validate(content)
        canonical = serialise(manifest)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(p) for p in first["loc"] if p not in _STAGE_TAGS) or "manifest"
        raise ManifestInvalid(f"{MANIFEST_FILE}: {where}: {first['msg']}") from error
    except (ValueError, RecursionError) as error:  # NaN, say: nothing that `serialise` wrote
        raise ManifestInvalid(f"{MANIFEST_FILE}: {error}") from error
    if canonical != raw:
        raise DigestMismatch(f"{MANIFEST_FILE}: changed since it was published")
    return manifest
