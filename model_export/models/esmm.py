"""ESMM: post-click conversion learnt over the entire space of impressions.

Ma et al., "Entire Space Multi-Task Model: An Effective Approach for Estimating Post-Click
Conversion Rate", SIGIR 2018, equation 1 and the loss of section 2.3:

    pCTCVR = pCTR * pCVR        loss = BCE(click, pCTR) + BCE(click and conversion, pCTCVR)

Two networks over shared embeddings give the logits of pCTR and pCVR. pCVR has no loss of its own:
it learns as a factor of pCTCVR, from all impressions rather than from the clicked ones alone.

The logit of the product is computed without leaving logits, so that it neither overflows nor
rounds to 0 or 1. With a, b the factors' logits, p / (1 - p) = 1 / (e^-a + e^-b + e^(-a-b)):

    logit = -logsumexp(-a, -b, -a - b)

Further tasks may be declared; each has a network of its own, as the two have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from bundle.manifest import Task
from bundle.schema import FeatureSchema, Name
from model_export.data.declarations import FeatureDeclaration
from model_export.data.tasks import TaskDeclaration
from model_export.models.base import ArchitectureOptions, Layers
from model_export.models.first_layer import FirstLayerModel
from model_export.models.layers import StackedLayers, Towers


class ESMMOptions(ArchitectureOptions):
    """Sizes, and the parts that tasks play.

    Attributes:
        task_layers: layer widths of each network, below its tower.
        click: the task of pCTR.
        conversion: the task of pCVR, conversion once clicked; its label is for evaluation.
        click_and_conversion: the task of pCTCVR, labelled over all impressions.
    """

    family: Literal["esmm"]
    task_layers: Layers
    click: Name
    conversion: Name
    click_and_conversion: Name

    @property
    def roles(self) -> tuple[str, str, str]:
        """The names of pCTR, pCVR and pCTCVR."""
        return self.click, self.conversion, self.click_and_conversion

    def check(
        self, features: Sequence[FeatureDeclaration], tasks: Sequence[TaskDeclaration]
    ) -> None:
        super().check(features, tasks)
        kinds = {task.name: task.kind for task in tasks}
        for name in self.roles:
            if kinds.get(name) != "binary":
                raise ValueError(f"architecture: esmm: {name!r} is not a binary task of `tasks`")
        if len(set(self.roles)) < len(self.roles):
            raise ValueError("architecture: esmm: each of its three roles needs a task of its own")
        sampled = [task.name for task in tasks if task.name in self.roles and task.negatives]
        if sampled:
            raise ValueError(f"architecture: esmm: {sampled[0]!r} may not leave out `negatives`")
        whole = next(task for task in tasks if task.name == self.click_and_conversion)
        if whole.where is not None and not whole.entire_space:
            raise ValueError(
                f"architecture: esmm: {whole.name!r} is defined only where "
                f"{whole.where!r} is 1; add `entire_space: true` to the task"
            )


class ESMM(FirstLayerModel):
    """A network for each task but pCTCVR, whose logit is that of the product."""

    task_modules = ()  # the loss of pCTCVR moves the networks of both factors

    def __init__(self, schema: FeatureSchema, tasks: Sequence[Task], options: ESMMOptions) -> None:
        widths, networks = options.task_layers, len(tasks) - 1
        super().__init__(schema, tasks, options, first_width=networks * widths[0])
        names = [task.name for task in tasks]
        self.click, self.conversion, self.product = map(names.index, options.roles)
        self.networks = StackedLayers(networks, widths, options.dropout)
        self.towers = Towers(networks, (widths[-1], *options.tower_layers), options.dropout)

    @property
    def trained(self) -> tuple[bool, ...]:
        return tuple(task != self.conversion for task in range(len(self.task_kinds)))

    def logits_from_first(self, first: torch.Tensor) -> torch.Tensor:
        networks = len(self.task_kinds) - 1
        columns = list(self.towers(self.networks(first.chunk(networks, dim=1))).unbind(dim=1))
        columns.insert(self.product, torch.zeros_like(columns[0]))  # see task_logits
        return torch.stack(columns, dim=1)

    def task_logits(self, towers: torch.Tensor) -> torch.Tensor:
        columns = list(towers.unbind(dim=1))
        columns[self.product] = product_logit(columns[self.click], columns[self.conversion])
        return torch.stack(columns, dim=1)


def product_logit(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The logit of sigmoid(a) * sigmoid(b), elementwise; float32 of one shape."""
    return -torch.logsumexp(torch.stack((-a, -b, -a - b)), dim=0)
