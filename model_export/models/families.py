"""The families that a configuration can name under `architecture.family`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

from pydantic import Field

from bundle.manifest import Task
from bundle.schema import FeatureSchema
from model_export.models.aitm import AITM, AITMOptions
from model_export.models.base import MultiTaskModel
from model_export.models.cgc import CGC, CGCOptions
from model_export.models.cross_stitch import CrossStitch, CrossStitchOptions
from model_export.models.esmm import ESMM, ESMMOptions
from model_export.models.mmoe import MMoE, MMoEOptions
from model_export.models.moe import MoE, MoEOptions
from model_export.models.ple import PLE, PLEOptions
from model_export.models.shared_bottom import SharedBottom, SharedBottomOptions
from model_export.models.single_task import SingleTask, SingleTaskOptions
from model_export.models.snr import SNR, SNROptions
from model_export.models.task_chain import TaskChain, TaskChainOptions

AnyOptions = (
    AITMOptions
    | CGCOptions
    | CrossStitchOptions
    | ESMMOptions
    | MMoEOptions
    | MoEOptions
    | PLEOptions
    | SharedBottomOptions
    | SingleTaskOptions
    | SNROptions
    | TaskChainOptions
)
Architecture = Annotated[AnyOptions, Field(discriminator="family")]

_NETWORKS: Mapping[str, Callable[..., MultiTaskModel]] = {
    "aitm": AITM,
    "cgc": CGC,
    "cross_stitch": CrossStitch,
    "esmm": ESMM,
    "mmoe": MMoE,
    "moe": MoE,
    "ple": PLE,
    "shared_bottom": SharedBottom,
    "single_task": SingleTask,
    "snr_aver": SNR,
    "snr_trans": SNR,
    "task_chain": TaskChain,
}


def build(options: AnyOptions, schema: FeatureSchema, tasks: Sequence[Task]) -> MultiTaskModel:
    """The network that `options` describe, freshly initialised from torch's generator."""
    return _NETWORKS[options.family](schema, tasks, options)
