"""Memory of versions: how much one will need, and giving back what a closed one had."""

from __future__ import annotations

import asyncio
import ctypes
from concurrent.futures import Executor

from bundle.manifest import GOLDEN_FILE
from bundle.stages import SingleStage
from bundle.store import Bundle
from service.lifecycle.version import LoadedVersion
from service.scoring.tensor_memory import TensorMemory

_COPIES = 2
"""onnxruntime keeps the weights of a graph, and those of matrix products once more, packed; a
vocabulary is kept as it came and sorted."""
_LETTING_GO_S = 0.2
"""After a version has closed: by then nothing of its last request is left that holds it."""
_NEXT_VERSION_S = 60.0
"""A version that does not last, or a canary's successor, is swapped back or forth within it."""
_LONGEST_KEPT_S = 120.0


def estimate_bytes(bundle: Bundle, item_cache_bytes: int) -> int:
    """Bytes that a version will occupy, from its manifest, before anything of it is loaded.

    Graphs, their weights and vocabularies count twice, and the item cache as if it were full.
    """
    manifest = bundle.manifest
    unread = {GOLDEN_FILE, *(sample.file for sample in manifest.samples.values())}
    kept = sum(each.bytes for name, each in manifest.files.items() if name not in unread)
    cached = 0 if isinstance(manifest.stages, SingleStage) else item_cache_bytes
    return _COPIES * kept + cached


class LettingGo:
    """Lets go of the versions that have closed, once nothing else refers to them.

    What they had stays for a while, for the next version: memory that is new to a process has to be
    found and cleared by the system, which holds up more than this process.

    Args:
        tensors: where their item tensors lay.
        on: a thread that may be held up.
    """

    def __init__(self, tensors: TensorMemory, on: Executor) -> None:
        self._tensors = tensors
        self._on = on
        self._closed = 0
        self._kept_since: float | None = None

    async def let_go(self, closed: list[LoadedVersion]) -> None:
        """Let go of some; the last one that closes gives back the memory of all, and where there is
        no last one for long, another."""
        loop = asyncio.get_running_loop()
        self._closed += 1
        number = self._closed
        if self._kept_since is None:
            self._kept_since = loop.time()
        await asyncio.sleep(_LETTING_GO_S)
        await loop.run_in_executor(self._on, closed.clear)
        await asyncio.sleep(_NEXT_VERSION_S)
        if number == self._closed:
            self._tensors.forget()
        elif self._kept_since is None or loop.time() - self._kept_since < _LONGEST_KEPT_S:
            return
        self._kept_since = None
        await loop.run_in_executor(self._on, _trim)


def _trim() -> None:
    """Return freed memory to the system; allocators keep it otherwise."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # glibc alone has it
        trim(0)
