"""Task weighting: one method a file. `AnyWeighting` is what a configuration can name."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from model_export.weighting.aligned_mtl import AlignedMTL, AlignedMTLOptions
from model_export.weighting.base import Step, Weighting
from model_export.weighting.cagrad import CAGrad, CAGradOptions
from model_export.weighting.dwa import DWA, DWAOptions
from model_export.weighting.gradnorm import GradNorm, GradNormOptions
from model_export.weighting.imtl_g import IMTLG, IMTLGOptions
from model_export.weighting.mgda import MGDA, MGDAOptions
from model_export.weighting.pcgrad import PCGrad, PCGradOptions
from model_export.weighting.static import Static, StaticOptions
from model_export.weighting.uncertainty import Uncertainty, UncertaintyOptions

AnyWeighting = Annotated[
    StaticOptions
    | UncertaintyOptions
    | DWAOptions
    | GradNormOptions
    | MGDAOptions
    | PCGradOptions
    | CAGradOptions
    | IMTLGOptions
    | AlignedMTLOptions,
    Field(discriminator="method"),
]

__all__ = ["AnyWeighting", "StaticOptions", "Step", "Weighting", "build"]


def build(options: AnyWeighting, tasks: int) -> Weighting:
    """The method that `options` name, for `tasks` tasks, in its initial state."""
    match options:
        case StaticOptions():
            return Static()
        case UncertaintyOptions():
            return Uncertainty(tasks)
        case DWAOptions():
            return DWA(tasks, options)
        case GradNormOptions():
            return GradNorm(tasks, options)
        case MGDAOptions():
            return MGDA()
        case PCGradOptions():
            return PCGrad()
        case CAGradOptions():
            return CAGrad(options)
        case IMTLGOptions():
            return IMTLG()
        case AlignedMTLOptions():
            return AlignedMTL()
