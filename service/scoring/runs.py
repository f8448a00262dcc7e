"""Work of onnxruntime that is under way: what does not end by itself is ended.

A graph may loop for ever, on all rows or on those of one user alone, and folding its constants may
take hours. While it does, its thread is lost, and with it whoever waits for it. Nothing but
onnxruntime's own flags ends such work; a thread looks now and then whether it is time to set one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

Array = npt.NDArray[np.generic]
_Options: TypeAlias = Any  # ort.RunOptions or ort.SessionOptions, which have no types

_WEIGHTS_BESIDE = "session.model_external_initializers_file_folder_path"
RUN_S = 5.0
"""A run is of a thousand rows or so: one that takes this long would answer nobody in time."""
_LOADING_S = 60.0
_LOOK_S = 0.2


class Ended(Exception):
    """Work that took too long, or that nobody wants any more, since the process is to end."""


class Runs:
    """The runs of all sessions of a process, and their opening.

    Args:
        run_s: longest that a run may take, and `loading_s` the opening of a session: seconds of a
            processor that its thread has had, so that a busy machine ends nothing.
    """

    def __init__(self, run_s: float = RUN_S, loading_s: float = _LOADING_S) -> None:
        self._run_s, self._loading_s = run_s, loading_s
        self._under_way: dict[_Options, int] = {}  # and the clock of the thread that it is on
        self._ended: set[_Options] = set()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="runs", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def close(self) -> None:
        """End what is under way, and whatever comes after."""
        self._closing.set()
        for options in list(self._under_way):
            _end(options)

    def open(
        self,
        path: Path,
        options: ort.SessionOptions,
        changed: Callable[[bytes], bytes] | None = None,
    ) -> ort.InferenceSession:
        """Open a graph, or what `changed` makes of the file's content.

        Raises:
            Ended: it took too long; Exception: whatever onnxruntime raises.
        """
        source: str | bytes = str(path)
        if changed is not None:
            source = changed(path.read_bytes())
            options.add_session_config_entry(_WEIGHTS_BESIDE, str(path.parent))
        self._begin(options)
        try:
            return ort.InferenceSession(
                source, sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            self._raise_if_ended(options, f"{path.name}: opening it", self._loading_s, error)
            raise
        finally:
            self._finish(options)

    def run(
        self, session: ort.InferenceSession, outputs: Sequence[str], feeds: dict[str, Array]
    ) -> list[Array]:
        """Run a session.

        Raises:
            Ended: it took too long; Exception: whatever onnxruntime raises.
        """
        options = ort.RunOptions()
        self._begin(options)
        try:
            found: list[Array] = session.run(outputs, feeds, options)
        except Exception as error:
            self._raise_if_ended(options, "a run", self._run_s, error)
            raise
        finally:
            self._finish(options)
        return found

    def _begin(self, options: _Options) -> None:
        self._under_way[options] = time.pthread_getcpuclockid(threading.get_ident())
        if self._closing.is_set():
            _end(options)

    def _finish(self, options: _Options) -> None:
        del self._under_way[options]
        self._ended.discard(options)

    def _raise_if_ended(
        self, options: _Options, what: str, limit_s: float, error: Exception
    ) -> None:
        if self._closing.is_set():
            raise Ended(f"{what} was ended: the service stops") from error
        if options in self._ended:
            raise Ended(f"{what} took more than {limit_s:g} s of a processor, and was ended") from (
                error
            )

    def _watch(self) -> None:
        began: dict[_Options, float] = {}
        while not self._closing.wait(_LOOK_S):
            seen, began = began, {}
            for options, clock in list(self._under_way.items()):
                with suppress(OSError):  # the thread has ended since
                    now = time.clock_gettime(clock)
                    began[options] = seen.get(options, now)
                    if now - began[options] > self._limit_s(options):
                        self._ended.add(options)
                        _end(options)

    def _limit_s(self, options: _Options) -> float:
        return self._run_s if isinstance(options, ort.RunOptions) else self._loading_s


def _end(options: _Options) -> None:
    if isinstance(options, ort.RunOptions):
        options.terminate = True
    else:
        options.set_load_cancellation_flag(True)


UNWATCHED = Runs()
"""For commands: whoever has started one can end it."""
