"""Memory of versions: how much one will need, and giving back what a closed one had."""

from __future__ import annotations

import asyncio
import ctypes
from concurrent.futures import Executor

from bundle.manifest import GOLDEN_FILE, SingleStage
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


def estimate_bytes(bundle: Bundle, item_cache_bytes: int) -> int:
    """Bytes that a version will occupy, from its manifest, before anything of it is loaded.

    Graphs, their weights and vocabularies count twice, and the item cache as if it were full.
    """
    manifest = bundle.manifest
    unread = {GOLDEN_FILE, *(sample.file for sample in manifest.samples.values())}
    kept = sum(each.bytes for name, each in manifest.files.items() if name not in unread)
    cached = 0 if isinstance(manifest.stages, SingleStage) else item_cache_bytes
    return _COPIES * kept + cached


async def let_go(closed: list[LoadedVersion], tensors: TensorMemory, on: Executor) -> None:
    """Let go of versions that have closed, on a thread, once nothing else refers to them.

    Args:
        tensors: where their item tensors lay; that much stays for a while, for the next version.
    """
    loop = asyncio.get_running_loop()
    await asyncio.sleep(_LETTING_GO_S)
    await loop.run_in_executor(on, _drop, closed)
    await asyncio.sleep(_NEXT_VERSION_S)
    await loop.run_in_executor(on, tensors.forget, _NEXT_VERSION_S)


def _drop(closed: list[LoadedVersion]) -> None:
    closed.clear()
    _give_back()


def _give_back() -> None:
    """Return freed memory to the system; allocators keep it otherwise."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # glibc alone has it
        trim(0)
