"""One ONNX graph in onnxruntime: explicit threads, checked names, one output."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from bundle.errors import ManifestInvalid
from bundle.manifest import Stage

Array = npt.NDArray[np.generic]


class Session:
    """Runs one stage of a bundle.

    Args:
        path: the ONNX file.
        stage: the names the manifest promises.
        threads: onnxruntime threads inside one run.

    Raises:
        ManifestInvalid: onnxruntime cannot open the file, or its names are not those promised.
    """

    def __init__(self, path: Path, stage: Stage, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(
                str(path), sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's own exceptions share no base class
            raise ManifestInvalid(f"{path.name}: onnxruntime refuses it: {error}") from error
        inputs = tuple(each.name for each in self._session.get_inputs())
        outputs = [each.name for each in self._session.get_outputs()]
        if set(inputs) != set(stage.inputs) or outputs != [stage.output]:
            raise ManifestInvalid(
                f"{path.name}: has inputs {sorted(inputs)} and outputs {outputs}, the manifest "
                f"promises {sorted(stage.inputs)} and {[stage.output]}"
            )
        self._inputs = inputs
        self._outputs = outputs

    def run(self, arrays: dict[str, Array]) -> npt.NDArray[np.float32]:
        """Run the graph; arrays it does not read are left out.

        Raises:
            Exception: whatever onnxruntime raises; the batcher decides what it means.
        """
        feeds = {name: arrays[name] for name in self._inputs}
        (output,) = self._session.run(self._outputs, feeds)
        scores: npt.NDArray[np.float32] = output
        return scores
