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

SCHEMA_VERSION: Literal[1] = 1
MANIFEST_FILE = "manifest.json"
VOCABULARIES_FILE = "vocabularies.npz"
GOLDEN_FILE = "golden.npz"
UNPUBLISHED = 0

PLAIN_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
"""Of what lies in a directory: a model, a file."""
ModelName = Annotated[str, Field(pattern=PLAIN_NAME, max_length=128)]
ColumnName = Annotated[str, Field(min_length=1, max_length=512)]
FileName = Annotated[str, Field(pattern=PLAIN_NAME, max_length=128)]
TensorName = Annotated[str, Field(min_length=1)]
Width = Annotated[int, Field(ge=1)]

_LEFT_OUT_IF_EMPTY = Field(exclude_if=lambda value: not value)
"""For what was not known when the first bundles were written."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Task(_Strict):
    """One output column of the model.

    A binary task's score is a probability; a regression task's is in the label's own unit.
    """

    name: Name
    kind: Literal["binary", "regression"]
    description: str = ""


class Dense(_Strict):
    """A linear layer and its ReLU, max(x W^T + b, 0), by the names of constants in a graph.

    Attributes:
        width: numbers that come out.
        weight: W, float32 [width, those that go in]. bias: b, float32 [width]; none if it is 0.
    """

    width: Width
    weight: TensorName
    bias: TensorName | None


class Part(_Strict):
    """Some columns of the first layer, and the layers that follow on these alone.

    Attributes:
        tensor: of the joint graph, that has what comes of them: [N, the last layer's width].
        width: number of columns.
        relu: whether the columns are rectified, max(x, 0).
        layers: none where `tensor` has the columns themselves.
    """

    tensor: TensorName
    width: Width
    relu: bool
    layers: Annotated[tuple[Dense, ...], _LEFT_OUT_IF_EMPTY] = ()

    @property
    def out_width(self) -> int:
        """Of `tensor`."""
        return self.layers[-1].width if self.layers else self.width


class Mixtures(_Strict):
    """Mixtures of E experts by G gates.

        mixture[g] = sum_e softmax(logits [N, G, E] + mask [G, E])[g, e] expert[e]

    Of a first layer, the experts are all parts but the last, which has the logits.

    Attributes:
        tensors: of the joint graph, G times [N, an expert's width].
        mask: a constant of the graph; none if nothing is added.
    """

    tensors: Annotated[tuple[TensorName, ...], Field(min_length=1)]
    mask: TensorName | None


class Branch(_Strict):
    """Layers over one of the mixtures of the level below.

    Attributes:
        stream: the number of the mixture.
        layers: one or more; without a ReLU after it, if it is a gate's.
    """

    stream: Annotated[int, Field(ge=0)]
    layers: Annotated[tuple[Dense, ...], Field(min_length=1)]


class Level(_Strict):
    """E experts and G gates over the mixtures of the level below, from which all follows.

    Attributes:
        experts: branches, of one width.
        gates: branches of one layer each, E wide and without a ReLU: a gate's logits.
    """

    experts: Annotated[tuple[Branch, ...], Field(min_length=1)]
    gates: tuple[Branch, ...]
    mixtures: Mixtures


class Stage(_Strict):
    """One ONNX graph: its file, and the names of the inputs and the output it has.

    Attributes:
        first_layer: of the joint stage alone: parts of user_tensor[user_row] + item_tensor, one
            beside the other, from which all scores follow. Who computes them may leave out what
            comes before them in the graph.
        mixtures: of the parts, from which alone all scores follow, if there are any.
        levels: above these, each from the one below alone.
    """

    file: FileName
    inputs: tuple[str, ...]
    output: str
    output_width: Width
    first_layer: Annotated[tuple[Part, ...], _LEFT_OUT_IF_EMPTY] = ()
    mixtures: Annotated[Mixtures | None, _LEFT_OUT_IF_EMPTY] = None
    levels: Annotated[tuple[Level, ...], _LEFT_OUT_IF_EMPTY] = ()

    @model_validator(mode="after")
    def _levels_fit(self) -> Stage:
        if self.mixtures is not None:
            experts, logits = self.first_layer[:-1], self.first_layer[-1:]
            gates, widths = len(self.mixtures.tensors), {expert.out_width for expert in experts}
            if len(widths) != 1 or logits[0].out_width != gates * len(experts):
                raise ValueError(
                    f"mixtures: {gates} gates need experts of one width in first_layer, and after "
                    "them a part as wide as gates times experts"
                )
        streams = len(self.mixtures.tensors) if self.mixtures is not None else 0
        for number, level in enumerate(self.levels):
            read = {branch.stream for branch in (*level.experts, *level.gates)}
            widths = {branch.layers[-1].width for branch in level.experts}
            of_gates = [[layer.width for layer in gate.layers] for gate in level.gates]
            below, streams = streams, len(level.mixtures.tensors)
            if (
                max(read) >= below
                or len(widths) != 1
                or of_gates != [[len(level.experts)]] * streams
            ):
                raise ValueError(
                    f"levels.{number}: experts of one width and {streams} gates, as wide as there "
                    f"are experts, must read some of {below} mixtures of the level below"
                )
        return self

    @property
    def computed_ahead(self) -> dict[str, int]:
        """Tensors of the joint graph that may be computed without it, and their widths."""
        if self.levels:
            level = self.levels[-1]
            return dict.fromkeys(level.mixtures.tensors, level.experts[0].layers[-1].width)
        if self.mixtures is not None:
            return dict.fromkeys(self.mixtures.tensors, self.first_layer[0].out_width)
        return {part.tensor: part.out_width for part in self.first_layer}


class Stages(_Strict):
    """The three stages of a ranking network.

    user   ids [U, K], numbers [U, M]                               -> user_tensor [U, P]
    item   ids [I, K], numbers [I, M]                               -> item_tensor [I, P']
    joint  user_tensor [U, P], item_tensor [N, P'], user_row [N]    -> task_scores [N, T]
    """

    user: Stage
    item: Stage
    joint: Stage


class SingleStage(_Strict):
    """A model that is one graph: nothing of a user or an item is computed ahead of the pair.

    single  user_ids [U, K], user_numbers [U, M], item_ids [N, K'], item_numbers [N, M'],
            user_row [N]                                            -> task_scores [N, T]

    `inputs` lists those that the graph reads.
    """

    single: Stage


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
