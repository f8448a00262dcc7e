"""One loaded model version: everything a request needs of it, and who holds it."""

from __future__ import annotations

from dataclasses import dataclass

from bundle.encoding import Encoder
from bundle.manifest import Manifest
from service.lifecycle.formulas import Formulas
from service.scoring.batcher import Batcher


@dataclass(eq=False, slots=True)
class LoadedVersion:
    """A version that was let in.

    Attributes:
        formulas: compiled for this version's tasks; replaced as a whole.
        leases: requests that hold this version; it is closed only at zero.
    """

    manifest: Manifest
    encoder: Encoder
    batcher: Batcher
    formulas: Formulas
    leases: int = 0
