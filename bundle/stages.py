"""What a manifest says of a version's ONNX graphs, stage by stage."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

PLAIN_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
"""Of what lies in a directory: a model, a file."""
FileName = Annotated[str, Field(pattern=PLAIN_NAME, max_length=128)]
TensorName = Annotated[str, Field(min_length=1)]
Width = Annotated[int, Field(ge=1)]

_LEFT_OUT_IF_EMPTY = Field(exclude_if=lambda value: not value)
"""For what was not known when the first bundles were written."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


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

    @property
    def out_width(self) -> int:
        """Of what comes of them."""
        return self.layers[-1].width


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
            widths = {branch.out_width for branch in level.experts}
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
            return dict.fromkeys(level.mixtures.tensors, level.experts[0].out_width)
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
