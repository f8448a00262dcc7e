"""The three stages of one model version: user once a request, item once an item, joint a pair."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt

from bundle.encoding import Encoded, Encoder
from bundle.store import Bundle
from service.metrics import Metrics
from service.scoring.item_cache import ItemCache
from service.scoring.session import Session
from service.values import Candidates, Scores

Tensor = npt.NDArray[np.float32]


class StagedModel:
    """The sessions of a bundle's three stages, and the item tensors they have given.

    Args:
        encoder: of the same bundle; only rows whose tensor is not cached are encoded.
        threads: onnxruntime threads inside one run.
        item_cache_bytes: budget of the item tensor cache.

    Raises:
        ManifestInvalid: a graph cannot be opened or is not what the manifest says.
    """

    def __init__(
        self,
        bundle: Bundle,
        encoder: Encoder,
        threads: int,
        item_cache_bytes: int,
        metrics: Metrics,
    ) -> None:
        stages = bundle.manifest.stages
        self._encoder = encoder
        self._cache = ItemCache(
            bundle.manifest.model, item_cache_bytes, stages.item.output_width, metrics
        )
        self._user, self._item, self._joint = (
            Session(bundle.path / stage.file, stage, threads)
            for stage in (stages.user, stages.item, stages.joint)
        )

    def user(self, users: Encoded) -> Tensor:
        """User tensors float32 [U, P]."""
        return self._user.run({"ids": users.ids, "numbers": users.numbers})

    def item(self, items: Candidates) -> Tensor:
        """Item tensors float32 [N, P], from the cache as far as it has them."""
        return self._cache.gather(items.content, partial(self._compute_items, items))

    def _compute_items(self, items: Candidates, rows: npt.NDArray[np.intp]) -> Tensor:
        encoded = self._encoder.item(items.rows[rows])
        return self._item.run({"ids": encoded.ids, "numbers": encoded.numbers})

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

    def score(self, users: Encoded, items: Candidates, user_row: npt.NDArray[np.int64]) -> Scores:
        """All three stages in a row: task scores float32 [N, T]."""
        return self.joint(self.user(users), self.item(items), user_row)
