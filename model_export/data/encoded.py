"""Encoded sets: impressions packed and encoded as serving does, ready to be batched for torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bundle.encoding import Encoded, Encoder
from bundle.errors import ValueRejected
from bundle.rows import Rows
from bundle.schema import Entity
from model_export.data.impressions import Impressions
from model_export.data.tasks import TaskDeclaration, labels_and_masks
from model_export.errors import DataInvalid


@dataclass(frozen=True)
class Batch:
    """Candidate rows for torch, each distinct impression and item once.

    Attributes:
        user_ids: int32 [U, K]. user_numbers: float32 [U, M].
        item_ids: int32 [I, K']. item_numbers: float32 [I, M'].
        user_row, item_row: int64 [N].
        labels: float32 [N, T]. masks: bool [N, T].
        positions: int64 [N], where the data has them.
    """

    user_ids: torch.Tensor
    user_numbers: torch.Tensor
    item_ids: torch.Tensor
    item_numbers: torch.Tensor
    user_row: torch.Tensor
    item_row: torch.Tensor
    labels: torch.Tensor
    masks: torch.Tensor
    positions: torch.Tensor | None

    def to(self, device: torch.device) -> Batch:
        """The same rows on a device."""
        held: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {n: None if t is None else t.to(device) for n, t in held.items()}
        return Batch(**moved)


@dataclass(frozen=True)
class EncodedSet:
    """One part of a data set, encoded.

    Attributes:
        users: [U] impressions, user side. items: [I] items.
        user_row, item_row, groups: int64 [N].
        labels: float32 [N, T]. masks: bool [N, T].
        positions: int64 [N], where the data has them.
    """

    users: Encoded
    items: Encoded
    user_row: npt.NDArray[np.int64]
    item_row: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]
    labels: npt.NDArray[np.float32]
    masks: npt.NDArray[np.bool_]
    positions: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.user_row)

    def chunks(self, rng: np.random.Generator | None = None) -> Iterator[EncodedSet]:
        """All rows at once: they are in memory."""
        yield self

    @staticmethod
    def concatenate(parts: Sequence[EncodedSet]) -> EncodedSet:
        """All rows of `parts`, one after the other."""
        if len(parts) == 1:
            return parts[0]
        users = np.cumsum([0, *(len(part.users) for part in parts)])
        items = np.cumsum([0, *(len(part.items) for part in parts)])
        positions = [part.positions for part in parts if part.positions is not None]
        return EncodedSet(
            users=Encoded.concatenate([part.users for part in parts]),
            items=Encoded.concatenate([part.items for part in parts]),
            user_row=np.concatenate(
                [part.user_row + at for part, at in zip(parts, users, strict=False)]
            ),
            item_row=np.concatenate(
                [part.item_row + at for part, at in zip(parts, items, strict=False)]
            ),
            groups=np.concatenate([part.groups for part in parts]),
            labels=np.concatenate([part.labels for part in parts]),
            masks=np.concatenate([part.masks for part in parts]),
            positions=np.concatenate(positions) if positions else None,
        )

    def batch(self, rows: npt.NDArray[np.int64] | slice) -> Batch:
        """The selected candidate rows, in that order."""
        users, user_row = np.unique(self.user_row[rows], return_inverse=True)
        items, item_row = np.unique(self.item_row[rows], return_inverse=True)
        user, item = self.users.take(users), self.items.take(items)
        return Batch(
            user_ids=torch.from_numpy(user.ids),
            user_numbers=torch.from_numpy(user.numbers),
            item_ids=torch.from_numpy(item.ids),
            item_numbers=torch.from_numpy(item.numbers),
            user_row=torch.from_numpy(user_row),
            item_row=torch.from_numpy(item_row),
            labels=torch.from_numpy(self.labels[rows]),
            masks=torch.from_numpy(self.masks[rows]),
            positions=None if self.positions is None else torch.from_numpy(self.positions[rows]),
        )


def pack(impressions: Impressions, entity: Entity, encoder: Encoder) -> Rows:
    """Pack the raw values of one entity that the model reads: [U] or [I] rows.

    Raises:
        DataInvalid: a column is absent, or a value does not fit its kind.
    """
    layout = encoder.layouts[entity]
    columns = {name: impressions.column(entity, name) for name in layout.slots}
    try:
        return layout.pack(columns, impressions.count(entity))
    except ValueRejected as error:
        raise DataInvalid(f"features: {entity}.{error}") from error


def encode(
    impressions: Impressions, tasks: Sequence[TaskDeclaration], encoder: Encoder
) -> EncodedSet:
    """Encode one part of a data set.

    Raises:
        DataInvalid: a column is absent, or a feature value or label does not fit.
    """
    labels, masks = labels_and_masks(tasks, impressions)
    return EncodedSet(
        users=encoder.user(
            pack(impressions, "user", encoder), pack(impressions, "context", encoder)
        ),
        items=encoder.item(pack(impressions, "item", encoder)),
        user_row=impressions.user_row,
        item_row=impressions.item_row,
        groups=impressions.groups,
        labels=labels,
        masks=masks,
        positions=impressions.positions,
    )
