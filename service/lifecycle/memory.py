"""Memory of versions: how much one will need, and giving back what a closed one had."""

from __future__ import annotations

import ctypes

from bundle.manifest import GOLDEN_FILE, SingleStage
from bundle.store import Bundle

_COPIES = 2
"""onnxruntime keeps the weights of a graph, and those of matrix products once more, packed; a
vocabulary is kept as it came and sorted."""


def estimate_bytes(bundle: Bundle, item_cache_bytes: int) -> int:
    """Bytes that a version will occupy, from its manifest, before anything of it is loaded.

    Graphs, their weights and vocabularies count twice, and the item cache as if it were full.
    """
    manifest = bundle.manifest
    unread = {GOLDEN_FILE, *(sample.file for sample in manifest.samples.values())}
    kept = sum(each.bytes for name, each in manifest.files.items() if name not in unread)
    cached = 0 if isinstance(manifest.stages, SingleStage) else item_cache_bytes
    return _COPIES * kept + cached


def give_back() -> None:
    """Return freed memory to the system; allocators keep it otherwise."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # glibc alone has it
        trim(0)
