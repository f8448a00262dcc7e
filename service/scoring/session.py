"""One ONNX graph in onnxruntime: explicit threads, checked names, one output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from bundle.errors import GraphInvalid, GraphMismatch, OperatorUnknown, OpsetUnsupported
from bundle.stages import Stage
from service.scoring.graph_cut import cut
from service.scoring.runs import UNWATCHED, Array, Ended, Runs


class Session:
    """Runs one stage of a bundle.

    Args:
        path: the ONNX file.
        stage: the names the manifest promises, and the tensors that every run is given instead of
            computing them: those of its first layers.
        threads: onnxruntime threads inside one run.
        runs: sees to it that they end.

    Raises:
        GraphInvalid: onnxruntime cannot open the file, or it is not as promised; says which.
        Ended: opening it took too long.
    """

    def __init__(self, path: Path, stage: Stage, threads: int, runs: Runs = UNWATCHED) -> None:
        self._runs = runs
        given = stage.computed_ahead
        self._session = self._open(path, _options(threads, whole=bool(given)))
        _check(path, self._session, stage)
        if given:
            self._session = self._open(path, _options(threads), partial(cut, given=given))
        self._inputs = tuple(each.name for each in self._session.get_inputs())
        self._outputs = [stage.output]

    def _open(
        self,
        path: Path,
        options: ort.SessionOptions,
        changed: Callable[[bytes], bytes] | None = None,
    ) -> ort.InferenceSession:
        try:
            return self._runs.open(path, options, changed)
        except Ended:
            raise
        except Exception as error:  # onnxruntime's own exceptions share no base class
            raise _refusal(path, str(error)) from error

    def run(self, arrays: Mapping[str, Array]) -> npt.NDArray[np.float32]:
        """Run the graph; arrays it does not read are left out.

        Raises:
            Ended: it took too long.
            Exception: whatever onnxruntime raises; the batcher decides what it means.
        """
        feeds = {name: arrays[name] for name in self._inputs}
        (output,) = self._runs.run(self._session, self._outputs, feeds)
        return cast("npt.NDArray[np.float32]", output)


def _options(threads: int, whole: bool = False) -> ort.SessionOptions:
    """Of a session.

    Args:
        whole: the graph is opened to be judged, not to be run.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    if whole:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.add_session_config_entry("session.disable_prepacking", "1")
    return options


def _check(path: Path, session: ort.InferenceSession, stage: Stage) -> None:
    """Whether a graph has the inputs and outputs that the manifest promises.

    Raises:
        GraphMismatch: it has not; says which.
    """
    inputs = [each.name for each in session.get_inputs()]
    outputs = [each.name for each in session.get_outputs()]
    if set(inputs) != set(stage.inputs) or outputs != [stage.output]:
        raise GraphMismatch(
            f"{path.name}: has inputs {sorted(inputs)} and outputs {outputs}, the manifest "
            f"promises {sorted(stage.inputs)} and {[stage.output]}"
        )
    for each in (*session.get_inputs(), *session.get_outputs()):
        _check_type(path, each)
    (output,) = session.get_outputs()
    width = output.shape[-1] if output.shape else None
    if isinstance(width, int) and width != stage.output_width:
        raise GraphMismatch(
            f"{path.name}: {output.name} is {width} wide, the manifest promises "
            f"{stage.output_width}"
        )


_INTEGERS = {"ids": "tensor(int32)", "user_row": "tensor(int64)"}
_FLOATS = ("numbers", "task_scores")
_OPSET = ("Unsupported model IR version", "official released onnx opset versions")
_OPERATOR = ("is not a registered function/op", "No Op registered for")


def _check_type(path: Path, tensor: ort.NodeArg) -> None:
    """What goes in and out must have the types of the encoder and of scores, and any row count."""
    kind = next((kind for name, kind in _INTEGERS.items() if tensor.name.endswith(name)), None)
    if kind is None and tensor.name.endswith(_FLOATS):
        kind = "tensor(float)"
    if kind is not None and tensor.type != kind:
        raise GraphMismatch(f"{path.name}: {tensor.name} is {tensor.type}, must be {kind}")
    if tensor.shape and isinstance(tensor.shape[0], int):
        raise GraphMismatch(
            f"{path.name}: {tensor.name} is declared with {tensor.shape[0]:,} rows; export it with "
            "a dynamic first dimension"
        )


def _refusal(path: Path, said: str) -> GraphInvalid:
    """onnxruntime's exceptions differ only in what they say."""
    about = f"{path.name}: onnxruntime refuses it: {said}"
    if any(words in said for words in _OPSET):
        return OpsetUnsupported(about)
    if any(words in said for words in _OPERATOR):
        return OperatorUnknown(about)
    return GraphInvalid(about)
