"""The families that a configuration can name under `architecture.family`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from bundle.manifest import Task
from bundle.schema import FeatureSchema
from model_export.models.base import MultiTaskModel
from model_export.models.mmoe import MMoE, MMoEOptions
from model_export.models.ple import PLE, PLEOptions
from model_export.models.shared_bottom import SharedBottom, SharedBottomOptions

Architecture = Annotated[
    SharedBottomOptions | MMoEOptions | PLEOptions, Field(discriminator="family")
]


def build(
    options: SharedBottomOptions | MMoEOptions | PLEOptions,
    schema: FeatureSchema,
    tasks: Sequence[Task],
) -> MultiTaskModel:
    """The network that `options` describe, freshly initialised from torch's generator."""
    match options:
        case SharedBottomOptions():
            return SharedBottom(schema, tasks, options)
        case MMoEOptions():
            return MMoE(schema, tasks, options)
        case PLEOptions():
            return PLE(schema, tasks, options)
