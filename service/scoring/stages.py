"""The three stages of one model version: user once a request, item once an item, joint a pair."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bundle.encoding import Encoded
from bundle.store import Bundle
from service.scoring.session import Session
from service.values import Scores

Tensor = npt.NDArray[np.float32]


class StagedModel:
    """The sessions of a bundle's three stages.

    Raises:
        ManifestInvalid: a graph cannot be opened or is not what the manifest says.
    """

    def __init__(self, bundle: Bundle, threads: int) -> None:
        stages = bundle.manifest.stages
        self._user, self._item, self._joint = (
            Session(bundle.path / stage.file, stage, threads)
            for stage in (stages.user, stages.item, stages.joint)
        )

    def user(self, users: Encoded) -> Tensor:
        """User tensors float32 [U, P]."""
        return self._user.run({"ids": users.ids, "numbers": users.numbers})

    def item(self, items: Encoded) -> Tensor:
        """Item tensors float32 [I, P]."""
        return self._item.run({"ids": items.ids, "numbers": items.numbers})

    def joint(
        self, user_tensor: Tensor, item_tensor: Tensor, user_row: npt.NDArray[np.int64]
    ) -> Scores:
        """Task scores float32 [N, T].

        Args:
            user_tensor: [U, P]. item_tensor: [N, P]. user_row: [N], each in [0, U).
        """
        return self._joint.run(
            {"user_tensor": user_tensor, "item_tensor": item_tensor, "user_row": user_row}
        )

    def score(self, users: Encoded, items: Encoded, user_row: npt.NDArray[np.int64]) -> Scores:
        """All three stages in a row: task scores float32 [N, T]."""
        return self.joint(self.user(users), self.item(items), user_row)
